-- The unique indexes on just these columns of a table that have another name than $3: name, partial, taken (an index of that name is there, too).
-- $1 resource text
-- $2 columns text[]
-- $3 name text
SELECT
    indexrelid::regclass::text AS name,
    indpred IS NOT NULL AS partial,
    to_regclass($3::text) IS NOT NULL AS taken
FROM pg_index
WHERE indrelid = to_regclass($1::text)::oid
  AND indisunique
  AND indexprs IS NULL
  AND indexrelid <> coalesce(to_regclass($3::text)::oid, 0::oid)
  AND (
      SELECT pg_catalog.array_agg(attname::text ORDER BY attname)
      FROM pg_attribute
      WHERE attrelid = indrelid
        AND attnum = ANY (indkey[0:indnkeyatts - 1])
  ) OPERATOR(pg_catalog.=) ARRAY(SELECT wanted FROM pg_catalog.unnest($2::text[]) AS wanted ORDER BY wanted)
ORDER BY name;
