-- The columns for ids in merged that are not text, because an earlier version made them: name.
SELECT attname::text AS name
FROM pg_attribute
WHERE attrelid = to_regclass('merged'::text)::oid
  AND attname IN ('id', 'kept')
  AND atttypid <> 'text'::regtype::oid;
