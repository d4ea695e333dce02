-- The row of employees with this id: id bigint, department_id bigint, name text, created_at timestamp with time zone. No row if there is none.
-- $1 id bigint
SELECT id, department_id, name, created_at
FROM employees
WHERE id OPERATOR(pg_catalog.=) $1::bigint;
