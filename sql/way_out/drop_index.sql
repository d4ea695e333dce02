-- The statement that drops an index of a table while writers go on: statement. No row if there is no such index.
-- $1 table text
-- $2 name text
SELECT 'DROP INDEX CONCURRENTLY ' || indexes.oid::regclass::text AS statement
FROM pg_index
INNER JOIN pg_class AS indexes ON indexes.oid = indexrelid
WHERE indrelid = to_regclass($1::text)::oid
  AND relname = $2::text;
