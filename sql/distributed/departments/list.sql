-- The departments after an id, by id, one more than the limit if there are more: id, name, created_at.
-- $1 after bigint
-- $2 limit bigint
-- $3 name text, or NULL for any
SELECT id, name, created_at
FROM departments
WHERE id > $1
  AND ($3::text IS NULL OR name = $3)
ORDER BY id
LIMIT $2::bigint + 1;
