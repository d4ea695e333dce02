-- Builds the index of the lookup while writers go on. No row. schema.sql says why it is this one.
CREATE INDEX CONCURRENTLY employees_lookup
    ON employees USING hash (hashtextextended(name::text, department_id::bigint))
    WITH (fillfactor = 10);
