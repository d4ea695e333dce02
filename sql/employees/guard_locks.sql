-- Makes the table in which the writers of one key wait for each other. No row.
-- Writers of two keys with the same hash wait for each other, too, which does no harm.
CREATE TABLE employees_guard_locks (hash bigint PRIMARY KEY);
