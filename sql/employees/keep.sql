-- Keeps rows of employees as they are until the transaction ends: id, of each.
-- $1 ids bigint[]
-- Fails with 40001 where one was changed or deleted since the snapshot. SHARE lets others refer to it.
SELECT id
FROM employees
WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
ORDER BY id
FOR SHARE;
