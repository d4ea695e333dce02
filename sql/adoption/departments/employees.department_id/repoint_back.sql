-- Moves employees back to the department they came from, where they still are in the one that was kept: id, of each.
-- $1 department_id bigint
-- $2 kept bigint
-- $3 ids bigint[]
UPDATE employees
SET department_id = $1
WHERE id = ANY ($3)
  AND department_id = $2
RETURNING id;
