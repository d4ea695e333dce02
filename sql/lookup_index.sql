-- Whether a lookup's index, which is in the schema of its table, can be used; no row where there is none: valid (not if a CREATE INDEX CONCURRENTLY failed).
-- $1 table text
-- $2 name text
SELECT indisvalid AS valid
FROM pg_index
INNER JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = to_regclass($1::text)::oid AND relname = $2::text;
