-- Builds the index of the lookup while writers go on. No row.
-- A serializable lookup that finds no row leaves a predicate lock on the page of the index where the row
-- would stand, and an insert into that page conflicts with it. A hash of the whole key spreads the keys,
-- and fillfactor 10 makes ten times the pages, so that two keys seldom share one.
CREATE INDEX CONCURRENTLY departments_lookup
    ON departments USING hash (hash_record_extended(ROW(name::text), 0::bigint))
    WITH (fillfactor = 10);
