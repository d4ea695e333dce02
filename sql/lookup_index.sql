-- The index of a lookup: sql_name (as SQL has it, NULL if there is no such index), valid (false if its CREATE INDEX CONCURRENTLY failed), partitioned (whether the table is). No row if there is no such table.
-- $1 table text
-- $2 name text
SELECT index_oid::regclass::text AS sql_name, indisvalid AS valid, tables.relkind = 'p' AS partitioned
FROM pg_class AS tables
LEFT JOIN (
    SELECT indexrelid AS index_oid, indrelid, indisvalid
    FROM pg_index
    INNER JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relname = $2::text
) AS indexes ON indrelid = tables.oid
WHERE tables.oid = to_regclass($1::text)::oid;
