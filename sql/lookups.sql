-- The indexes of the lookups that are there: name, valid (not if a CREATE INDEX CONCURRENTLY failed).
-- $1 names text[]
SELECT name, indisvalid AS valid
FROM pg_catalog.unnest($1::text[]) AS names (name)
INNER JOIN pg_index ON indexrelid = to_regclass(quote_ident(name))::oid
ORDER BY name;
