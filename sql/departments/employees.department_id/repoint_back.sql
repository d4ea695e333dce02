-- Moves employees back to the department they came from, where they still are in the one that was kept: id, of each.
-- $1 department_id bigint
-- $2 kept bigint
-- $3 ids bigint[]
UPDATE employees
SET department_id = $1::bigint
WHERE id OPERATOR(pg_catalog.=) ANY ($3::bigint[])
  AND department_id OPERATOR(pg_catalog.=) $2::bigint
RETURNING id;
