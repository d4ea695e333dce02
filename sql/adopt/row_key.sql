-- The columns by which the rows of a table are told apart, in their order: name. They are the primary key's, or else those of a unique index of columns that are NOT NULL.
-- $1 table oid
SELECT attname::pg_catalog.text AS name
FROM (
    SELECT indrelid, indkey, indnkeyatts
    FROM pg_catalog.pg_index
    WHERE indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
      AND indisunique
      AND indisvalid
      AND (indisprimary OR indimmediate)
      AND indpred IS NULL
      AND indexprs IS NULL
      AND NOT EXISTS (
          SELECT
          FROM pg_catalog.pg_attribute
          WHERE attrelid OPERATOR(pg_catalog.=) indrelid
            AND attnum OPERATOR(pg_catalog.=) ANY (indkey)
            AND NOT attnotnull
      )
    ORDER BY indisprimary DESC, indexrelid
    LIMIT 1
) AS first_key
CROSS JOIN pg_catalog.unnest(indkey) WITH ORDINALITY AS keys (number, place)
INNER JOIN pg_catalog.pg_attribute
    ON attrelid OPERATOR(pg_catalog.=) indrelid
   AND attnum OPERATOR(pg_catalog.=) number
WHERE place OPERATOR(pg_catalog.<=) indnkeyatts
ORDER BY place;
