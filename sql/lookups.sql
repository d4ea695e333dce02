-- The indexes of the lookups that are there, each in the schema of its table: name, valid (not if a CREATE INDEX CONCURRENTLY failed).
-- $1 tables text[]
-- $2 names text[], an index of each
SELECT relname::text AS name, indisvalid AS valid
FROM unnest($1::text[], $2::text[]) AS wanted (table_name, index_name)
INNER JOIN pg_index ON indrelid = to_regclass(table_name)::oid
INNER JOIN pg_class ON pg_class.oid = indexrelid AND relname = index_name
ORDER BY name;
