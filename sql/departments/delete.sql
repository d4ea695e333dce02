-- The row of departments just deleted: id bigint. No row if there was none.
-- $1 id bigint
-- The rows of employees that refer to it go with it, by ON DELETE CASCADE.
DELETE FROM departments
WHERE id OPERATOR(pg_catalog.=) $1::bigint
RETURNING id;
