-- Lets the guard's triggers fire whatever session_replication_role is, as a unique constraint holds. No row.
ALTER TABLE {{ table }}
    ENABLE ALWAYS TRIGGER {{ quoted(name ~ "_guard_insert") }},
    ENABLE ALWAYS TRIGGER {{ quoted(name ~ "_guard_update") }};
