-- Points rows of employees back at the row of departments that is restored, if they still refer to the one that was kept: id.
-- $1 id text, the row that is restored
-- $2 kept text, the row that was kept in its place
-- $3 ids text[], the rows to point back
UPDATE employees
SET department_id = $1::text::bigint
WHERE id OPERATOR(pg_catalog.=) ANY ($3::text[]::bigint[])
  AND department_id OPERATOR(pg_catalog.=) $2::text::bigint
RETURNING id;
