-- A row of employees that still refers to one of these rows, and would be deleted with it: id. No row if there is none.
-- $1 ids bigint[]
SELECT id
FROM employees
WHERE department_id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
LIMIT 1;
