-- Gives a row of departments that came back the values again that a trigger changed in merge, if one does not as rows are pointed at it: changed (the columns that are not as before even so). No row if there is nothing to change.
-- $1 id text
-- $2 own jsonb, the columns as they were before
WITH had AS (
    SELECT (whole.*)::departments AS content
    FROM departments
    CROSS JOIN LATERAL pg_catalog.jsonb_populate_record((departments.*)::departments, $2::jsonb) AS whole
    WHERE departments.id OPERATOR(pg_catalog.=) $1::text::bigint
),
restored AS (
    UPDATE departments
    SET
        name = (had.content).name,
        created_at = (had.content).created_at
    FROM had
    WHERE departments.id OPERATOR(pg_catalog.=) $1::text::bigint
      AND (departments.*)::text IS DISTINCT FROM (had.content)::text
    RETURNING pg_catalog.to_jsonb(departments.*) AS has
)
SELECT ARRAY(
    SELECT was.key
    FROM pg_catalog.jsonb_each($2::jsonb) AS was
    WHERE was.value::text IS DISTINCT FROM (restored.has OPERATOR(pg_catalog.->) was.key)::text
    ORDER BY was.key
) AS changed
FROM restored;
