-- The employees after an id, by id, one more than the limit if there are more: id, department_id, name, created_at.
-- $1 after bigint
-- $2 limit bigint
-- $3 name text, or NULL for any
-- $4 department_id bigint, or NULL for any
-- With both, the hash condition lets employees_lookup find the row.
SELECT id, department_id, name, created_at
FROM employees
WHERE id OPERATOR(pg_catalog.>) $1::bigint
  AND ($3::text IS NULL OR name::text = $3::text)
  AND ($4::bigint IS NULL OR department_id OPERATOR(pg_catalog.=) $4::bigint)
  AND ($3::text IS NULL OR $4::bigint IS NULL
       OR hashtextextended(name::text, department_id::bigint)
          = hashtextextended($3::text, $4::bigint))
ORDER BY id
LIMIT $2::bigint + 1;
