-- Drops the guard's function and its triggers. No row.
DROP FUNCTION IF EXISTS departments_guard() CASCADE;
