-- The kind of a table, and its relatives by inheritance or partitioning: oid, name (without its schema), kind ("r" for an ordinary table, as in pg_class), parents, children. No row if there is no such table.
-- $1 table text
SELECT
    pg_class.oid::bigint AS oid,
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
