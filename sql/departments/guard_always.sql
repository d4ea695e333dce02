-- Lets the guard's triggers fire whatever session_replication_role is, as a unique constraint holds. No row.
ALTER TABLE departments
    ENABLE ALWAYS TRIGGER departments_guard_insert,
    ENABLE ALWAYS TRIGGER departments_guard_update;
