-- The rows by which writers of one key wait for each other. No row.
-- UNLOGGED: they matter only while a transaction runs, and none survives a crash. Two keys with one
-- hash only wait for each other, so departments and employees may share the table.
CREATE UNLOGGED TABLE IF NOT EXISTS guard_locks (hash bigint PRIMARY KEY);
