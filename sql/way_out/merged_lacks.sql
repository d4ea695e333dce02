-- What merged lacks because an earlier version made it: filled (whether that column is missing), as_text (whether a column for ids is not text yet), index (whether that of kept is missing).
SELECT
    count(*) FILTER (WHERE attname = 'filled'::name) = 0 AS filled,
    count(*) FILTER (WHERE attname IN ('id', 'kept') AND atttypid <> 'text'::regtype::oid) > 0 AS as_text,
    to_regclass('merged_kept'::text) IS NULL AS index
FROM pg_attribute
WHERE attrelid = to_regclass('merged'::text)::oid
  AND attnum > 0
  AND NOT attisdropped;
