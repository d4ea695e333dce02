-- Which of these names is a column of none of these tables: name.
-- $1 tables text[]
-- $2 names text[]
SELECT name
FROM pg_catalog.unnest($2::text[]) AS names (name)
WHERE NOT EXISTS (
    SELECT
    FROM pg_catalog.unnest($1::text[]) AS tables (table_name)
    INNER JOIN pg_attribute ON attrelid = to_regclass(table_name)::oid
    WHERE attname::text = name
      AND attnum > 0
      AND NOT attisdropped
)
ORDER BY name;
