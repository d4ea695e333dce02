-- Rows of departments as they are before rows that refer to them are pointed elsewhere, which may fire triggers: before (the rows as JSON, by their ids), whole (whether the JSON holds all that is needed of them).
-- $1 ids bigint[], the rows that go
SELECT
    pg_catalog.jsonb_object_agg(departments.id::text, pg_catalog.to_jsonb(departments.*))::text AS before,
    pg_catalog.bool_and(
        (departments.*)::text = (whole.*)::text
    ) AS whole
FROM ONLY departments
CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::departments, pg_catalog.to_jsonb(departments.*)) AS whole
WHERE departments.id OPERATOR(pg_catalog.=) ANY ($1::bigint[]);
