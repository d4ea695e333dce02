-- Builds the index of the lookup while writers go on. No row. schema.sql says why it is this one.
CREATE INDEX CONCURRENTLY departments_lookup
    ON departments USING hash (hashtextextended(name::text, 0::bigint)) WITH (fillfactor = 10);
