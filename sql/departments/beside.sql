-- The columns of a row of departments that are not as they were before a trigger changed them in merge: name, value (as it was, as JSON).
-- $1 id text
-- $2 columns jsonb, as they were
SELECT had.key AS name, had.value::text AS value
FROM departments
CROSS JOIN pg_catalog.jsonb_each($2::jsonb) AS had
WHERE departments.id OPERATOR(pg_catalog.=) $1::text::bigint
  AND had.value::text IS DISTINCT FROM (pg_catalog.to_jsonb(departments.*) OPERATOR(pg_catalog.->) had.key)::text
ORDER BY name;
