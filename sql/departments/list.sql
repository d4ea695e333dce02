-- The rows of departments after an id, by id, one more than the limit if there are more: id bigint, name text, created_at timestamp with time zone.
-- $1 after bigint, or NULL for the start
-- $2 limit bigint
-- $3 name text, or NULL for any
-- If a request has the whole key, departments_lookup serves the condition about the hash.
SELECT id, name, created_at
FROM departments
WHERE ($1::bigint IS NULL OR id OPERATOR(pg_catalog.>) $1::bigint)
  AND ($3::text IS NULL OR name::text = $3::text)
  AND ($3::text IS NULL
       OR hash_record_extended(ROW(name::text), 0::bigint)
          = hash_record_extended(ROW($3::text), 0::bigint))
ORDER BY id
LIMIT $2::bigint + 1;
