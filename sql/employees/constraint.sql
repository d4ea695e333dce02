-- Makes the unique index of employees a constraint. No row.
ALTER TABLE employees
    ADD CONSTRAINT employees_key UNIQUE USING INDEX employees_key;
