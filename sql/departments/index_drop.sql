-- Drops an INVALID unique index of departments. No row.
DROP INDEX CONCURRENTLY departments_key;
