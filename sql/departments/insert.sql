-- The new department: id, name, created_at.
-- $1 name text
INSERT INTO departments (name)
VALUES ($1)
RETURNING id, name, created_at;
