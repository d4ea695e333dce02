-- The row of employees with this key, the lowest id where several share it, and how many do: id bigint, department_id bigint, name text, created_at timestamp with time zone, copies bigint. No row if there is none.
-- $1 department_id bigint
-- $2 name text
-- The condition needs no hash, because these engines lock the keys that were looked at, and no pages.
SELECT id, department_id, name, created_at, count(*) OVER () AS copies
FROM employees
WHERE department_id OPERATOR(pg_catalog.=) $1::bigint
  AND name OPERATOR(pg_catalog.=) $2::text
ORDER BY employees.id
LIMIT 1;
