-- The rows by which writers of one key wait for each other. No row.
-- Two keys that have the same hash wait for each other, too, which does no harm.
CREATE TABLE {{ quoted(name ~ "_guard_locks") }} (hash bigint PRIMARY KEY);
