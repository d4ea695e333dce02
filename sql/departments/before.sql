-- Rows of departments before rows that refer to them are pointed elsewhere, which may fire triggers: id, before (the row as JSON).
-- $1 ids bigint[]
SELECT departments.id, (pg_catalog.to_jsonb(departments.*))::text AS before
FROM ONLY departments
WHERE departments.id OPERATOR(pg_catalog.=) ANY ($1::bigint[]);
