-- Whether the index of this name is there and INVALID, left by a CREATE INDEX CONCURRENTLY that failed: invalid.
-- $1 name text
SELECT EXISTS (
    SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid
) AS invalid;
