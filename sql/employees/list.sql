-- The rows of employees after an id, by id, one more than the limit if there are more: id bigint, department_id bigint, name text, created_at timestamp with time zone.
-- $1 after bigint, or NULL for the start
-- $2 limit bigint
-- $3 department_id bigint, or NULL for any
-- $4 name text, or NULL for any, needs department_id
-- If a request has the whole key, employees_lookup serves the condition about the hash.
SELECT id, department_id, name, created_at
FROM employees
WHERE ($1::bigint IS NULL OR id OPERATOR(pg_catalog.>) $1::bigint)
  AND ($3::bigint IS NULL OR department_id OPERATOR(pg_catalog.=) $3::bigint)
  AND ($4::text IS NULL OR name::text = $4::text)
  AND ($3::bigint IS NULL OR $4::text IS NULL
       OR hash_record_extended(ROW(department_id::bigint, name::text), 0::bigint)
          = hash_record_extended(ROW($3::bigint, $4::text), 0::bigint))
ORDER BY id
LIMIT $2::bigint + 1;
