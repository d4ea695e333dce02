-- Whether the index of a lookup can be used: valid (false if its CREATE INDEX CONCURRENTLY failed). No row if there is no such index.
-- $1 table text
-- $2 name text
SELECT indisvalid AS valid
FROM pg_index
INNER JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = to_regclass($1::text)::oid AND relname = $2::text;
