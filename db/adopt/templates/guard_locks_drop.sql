-- Drops what guard_locks.sql made. No row.
DROP TABLE IF EXISTS {{ quoted(name ~ "_guard_locks") }};
