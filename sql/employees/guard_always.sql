-- Lets the guard's triggers fire whatever session_replication_role is, as a unique constraint holds. No row.
ALTER TABLE employees
    ENABLE ALWAYS TRIGGER employees_guard_insert,
    ENABLE ALWAYS TRIGGER employees_guard_update;
