-- Makes the unique index of departments a constraint. No row.
ALTER TABLE departments
    ADD CONSTRAINT departments_key UNIQUE USING INDEX departments_key;
