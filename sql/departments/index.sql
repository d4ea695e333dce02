-- Builds the unique index of departments while writers go on. No row. It stays behind INVALID where it fails.
CREATE UNIQUE INDEX CONCURRENTLY departments_key ON departments (name);
