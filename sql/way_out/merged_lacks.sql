-- What merged lacks because an earlier version made it: filled (whether that column is missing), as_text (whether a column for ids is not text yet), key and old_index (whether the primary key, and the index of kept, begin with the resource), index (whether none begins with kept).
WITH indexes AS (
    SELECT relname::text AS name, pg_get_indexdef(indexrelid, 1, FALSE) AS first_column
    FROM pg_index
    INNER JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = to_regclass('merged'::text)::oid
)
SELECT
    count(*) FILTER (WHERE attname = 'filled'::name) = 0 AS filled,
    count(*) FILTER (WHERE attname IN ('id', 'kept') AND atttypid <> 'text'::regtype::oid) > 0 AS as_text,
    EXISTS (SELECT FROM indexes WHERE name = 'merged_pkey'::text AND first_column = 'resource'::text) AS key,
    EXISTS (SELECT FROM indexes WHERE name = 'merged_kept'::text AND first_column = 'resource'::text) AS old_index,
    NOT EXISTS (SELECT FROM indexes WHERE first_column = 'kept'::text) AS index
FROM pg_attribute
WHERE attrelid = to_regclass('merged'::text)::oid
  AND attnum > 0
  AND NOT attisdropped;
