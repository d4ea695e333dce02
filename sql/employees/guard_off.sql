-- Drops the guard's function, and with it its triggers. No row.
DROP FUNCTION IF EXISTS employees_guard() CASCADE;
