-- A table merged that is somebody else's: name, missing (the columns that it lacks). No row if it is merge's, or if there is none.
-- The columns id and kept are not looked for, because any table may have columns of these names.
SELECT
    pg_class.oid::regclass::text AS name,
    pg_catalog.array_agg(wanted ORDER BY wanted) AS missing
FROM pg_class
CROSS JOIN pg_catalog.unnest(ARRAY['step', 'resource', 'content', 'pointed']) AS wanted
WHERE pg_class.oid = to_regclass('merged'::text)::oid
  AND NOT EXISTS (
      SELECT
      FROM pg_attribute
      WHERE attrelid = pg_class.oid
        AND attname::text = wanted
        AND NOT attisdropped
  )
GROUP BY pg_class.oid;
