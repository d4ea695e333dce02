-- What a table is and what it inherits from or to: name (without its schema), kind ("r" for an ordinary table, as in pg_class), parents, children (partitions, too). No row if there is no such table.
-- $1 table text
SELECT
    relname::text AS name,
    relkind::text AS kind,
    ARRAY(
        SELECT inhparent::regclass::text
        FROM pg_inherits
        WHERE inhrelid = pg_class.oid
        ORDER BY 1
    ) AS parents,
    ARRAY(
        SELECT inhrelid::regclass::text
        FROM pg_inherits
        WHERE inhparent = pg_class.oid
        ORDER BY 1
    ) AS children
FROM pg_class
WHERE pg_class.oid = to_regclass($1::text)::oid;
