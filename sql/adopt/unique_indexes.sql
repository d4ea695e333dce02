-- The unique indexes of a table that have a column in them: name, keys (the SQL of each of its columns and expressions), places (at which of these the column itself stands, from 1), predicate, nulls_equal.
-- $1 table oid
-- $2 column text
SELECT
    indexes.relname::pg_catalog.text AS name,
    ARRAY(
        SELECT pg_catalog.pg_get_indexdef(indexrelid, number, FALSE)
        FROM pg_catalog.generate_series(1, indnkeyatts::pg_catalog.int4) AS number
        ORDER BY number
    ) AS keys,
    ARRAY(
        SELECT number::pg_catalog.int4
        FROM pg_catalog.generate_series(1, indnkeyatts::pg_catalog.int4) AS number
        WHERE indkey[number OPERATOR(pg_catalog.-) 1] OPERATOR(pg_catalog.=) attnum
        ORDER BY number
    ) AS places,
    pg_catalog.pg_get_expr(indpred, indrelid) AS predicate,
    -- pg_index has this column only since PostgreSQL 15.
    coalesce((pg_catalog.to_jsonb(pg_index) OPERATOR(pg_catalog.->>) 'indnullsnotdistinct'::pg_catalog.text)::pg_catalog.bool, FALSE) AS nulls_equal
FROM pg_catalog.pg_index
INNER JOIN pg_catalog.pg_class AS indexes ON indexes.oid OPERATOR(pg_catalog.=) indexrelid
INNER JOIN pg_catalog.pg_attribute ON attrelid OPERATOR(pg_catalog.=) indrelid
WHERE indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
  AND attname OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name
  AND indisunique
  AND indisvalid
  AND (
      attnum OPERATOR(pg_catalog.=) ANY (indkey)
      -- An expression of the column.
      OR indexprs IS NOT NULL
     AND EXISTS (
         SELECT
         FROM pg_catalog.pg_depend
         WHERE classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
           AND objid OPERATOR(pg_catalog.=) indexrelid
           AND refobjid OPERATOR(pg_catalog.=) indrelid
           AND refobjsubid OPERATOR(pg_catalog.=) attnum
     )
  )
ORDER BY name;
