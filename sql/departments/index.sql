-- Builds the unique index of departments while writers go on. No row. If it fails, it leaves an INVALID index.
CREATE UNIQUE INDEX CONCURRENTLY departments_key ON departments (name);
