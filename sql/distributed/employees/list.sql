-- The rows of employees after an id, by id, one more than the limit if there are more: id bigint, department_id bigint, name text, created_at timestamp with time zone.
-- $1 after bigint, or NULL for the start
-- $2 limit bigint
-- $3 department_id bigint, or NULL for any
-- $4 name text, or NULL for any, needs department_id
SELECT id, department_id, name, created_at
FROM employees
WHERE ($1::bigint IS NULL OR id OPERATOR(pg_catalog.>) $1::bigint)
  AND ($3::bigint IS NULL OR department_id OPERATOR(pg_catalog.=) $3::bigint)
  AND ($4::text IS NULL OR name OPERATOR(pg_catalog.=) $4::text)
ORDER BY id
LIMIT $2::bigint + 1;
