-- The statements that lock tables until the transaction ends: shared (no foreign key can be added; readers and writers go on), alone (all other writers are kept out).
-- $1 tables text[]
-- LOCK TABLE takes no parameters, so PostgreSQL puts the statements together, and quotes the names.
WITH locked AS (
    SELECT string_agg(to_regclass(name)::text, ', ') AS names
    FROM pg_catalog.unnest($1::text[]) AS tables (name)
)
SELECT
    'LOCK TABLE ' || names || ' IN ROW EXCLUSIVE MODE' AS shared,
    'LOCK TABLE ' || names || ' IN SHARE ROW EXCLUSIVE MODE' AS alone
FROM locked;
