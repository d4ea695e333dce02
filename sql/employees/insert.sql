-- The new employee: id, department_id, name, created_at.
-- $1 department_id bigint
-- $2 name text
INSERT INTO employees (department_id, name)
VALUES ($1, $2)
RETURNING id, department_id, name, created_at;
