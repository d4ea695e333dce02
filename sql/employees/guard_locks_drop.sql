-- Drops what guard_locks.sql made. No row.
DROP TABLE IF EXISTS employees_guard_locks;
