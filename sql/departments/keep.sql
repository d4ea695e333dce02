-- Locks rows of departments, so that nobody changes or deletes them until the transaction ends: id.
-- $1 ids bigint[]
-- It fails with 40001 if one was changed or deleted since the snapshot. FOR SHARE lets new rows refer to them.
SELECT id
FROM departments
WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
ORDER BY id
FOR SHARE;
