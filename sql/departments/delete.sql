-- The department just deleted, its employees with it: id bigint. No row if there was none.
-- $1 id bigint
DELETE FROM departments
WHERE id OPERATOR(pg_catalog.=) $1::bigint
RETURNING id;
