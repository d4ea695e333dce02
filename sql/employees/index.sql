-- Builds the unique index of employees while writers go on. No row. If it fails, it leaves an INVALID index.
CREATE UNIQUE INDEX CONCURRENTLY employees_key ON employees (department_id, name);
