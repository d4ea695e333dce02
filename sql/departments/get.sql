-- The row of departments with this id: id bigint, name text, created_at timestamp with time zone. No row if there is none.
-- $1 id bigint
SELECT id, name, created_at
FROM departments
WHERE id OPERATOR(pg_catalog.=) $1::bigint;
