-- An index by its name: valid (not if a CREATE INDEX CONCURRENTLY failed). No row if there is none.
-- $1 name text
SELECT indisvalid AS valid
FROM pg_index
WHERE indexrelid = to_regclass($1::text)::oid;
