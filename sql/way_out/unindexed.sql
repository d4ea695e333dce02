-- The columns of these references that no index begins with, which a merge would look for by reading their whole tables: reference, statement (that makes an index).
-- $1 references text[]
-- $2 tables text[], the table of each
-- $3 columns text[], the column of each
SELECT
    reference,
    pg_catalog.format('CREATE INDEX CONCURRENTLY ON %s (%I)', to_regclass(table_name), column_name) AS statement
FROM unnest($1::text[], $2::text[], $3::text[]) AS folders (reference, table_name, column_name)
INNER JOIN pg_attribute ON attrelid = to_regclass(table_name)::oid AND attname::text = column_name
WHERE NOT EXISTS (
    SELECT
    FROM pg_index
    WHERE indrelid = attrelid
      AND indkey[0] = attnum
      AND indpred IS NULL
      AND indisvalid
)
ORDER BY reference;
