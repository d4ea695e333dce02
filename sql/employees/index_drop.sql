-- Drops an INVALID unique index of employees. No row.
DROP INDEX CONCURRENTLY employees_key;
