-- The row of employees just deleted: id bigint. No row if there was none.
-- $1 id bigint
DELETE FROM employees
WHERE id OPERATOR(pg_catalog.=) $1::bigint
RETURNING id;
