-- Drops what guard_locks.sql made. No row.
DROP TABLE IF EXISTS departments_guard_locks;
