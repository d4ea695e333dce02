-- Gives a row of departments that came back its own values again, where a trigger changed it as rows were pointed at it: changed (the columns that are not as they were even so). No row if nothing has changed it.
-- $1 id text
-- $2 content jsonb, what it had
WITH had AS (
    SELECT (whole.*)::departments AS content
    FROM departments
    CROSS JOIN LATERAL pg_catalog.jsonb_populate_record((departments.*)::departments, $2::jsonb) AS whole
    WHERE departments.id OPERATOR(pg_catalog.=) $1::text::bigint
),
settled AS (
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
    WHERE was.value::text IS DISTINCT FROM (settled.has OPERATOR(pg_catalog.->) was.key)::text
    ORDER BY was.key
) AS changed
FROM settled;
