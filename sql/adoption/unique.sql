-- An index by its name, if it is unique: table_name, columns, other_kind (partial or of expressions), valid, is_constraint. No row if there is none.
-- $1 name text
SELECT
    indrelid::regclass::text AS table_name,
    (
        SELECT pg_catalog.array_agg(attname::text ORDER BY attname)
        FROM pg_attribute
        WHERE attrelid = indrelid
          AND attnum = ANY (indkey[0:indnkeyatts - 1])
    ) AS columns,
    indpred IS NOT NULL OR indexprs IS NOT NULL AS other_kind,
    indisvalid AS valid,
    EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u')) AS is_constraint
FROM pg_index
WHERE indexrelid = to_regclass($1::text)::oid
  AND indisunique;
