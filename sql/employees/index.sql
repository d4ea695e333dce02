-- Builds the unique index of employees while writers go on. No row. It stays behind INVALID where it fails.
CREATE UNIQUE INDEX CONCURRENTLY employees_key ON employees (department_id, name);
