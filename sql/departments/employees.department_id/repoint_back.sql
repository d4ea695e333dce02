-- Moves rows of employees back to the one of departments they referred to, where they still refer to the one that was kept: id, of each.
-- $1 id text
-- $2 kept text
-- $3 ids text[], of the rows to move
UPDATE employees
SET department_id = $1::text::bigint
WHERE id OPERATOR(pg_catalog.=) ANY ($3::text[]::bigint[])
  AND department_id OPERATOR(pg_catalog.=) $2::text::bigint
RETURNING id;
