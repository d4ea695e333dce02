-- The columns that a trigger changed in merge, in the row of {{ name }} that was kept, and that are not as before: name.
-- $1 kept text
-- $2 before jsonb
SELECT had.key AS name
FROM {{ table }}
CROSS JOIN pg_catalog.jsonb_each($2::jsonb) AS had
WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} $1::text::{{ id.bare }}
  AND had.value::text IS DISTINCT FROM (pg_catalog.to_jsonb({{ table }}.*) OPERATOR(pg_catalog.->) had.key)::text
ORDER BY name;
