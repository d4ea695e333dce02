-- The statement that gives an index of a table another name: statement. No row if there is no such index.
-- $1 table text
-- $2 name text
-- $3 new_name text
SELECT 'ALTER INDEX ' || indexes.oid::regclass::text || ' RENAME TO ' || quote_ident($3::text) AS statement
FROM pg_index
INNER JOIN pg_class AS indexes ON indexes.oid = indexrelid
WHERE indrelid = to_regclass($1::text)::oid
  AND relname = $2::text;
