-- Gives a row of {{ name }} that came back the values again that a trigger changed in merge, if one does not as rows are pointed at it: changed (the columns that are not as before even so). No row if there is nothing to change.
-- $1 id text
-- $2 own jsonb, the columns as they were before
WITH had AS (
    SELECT (whole.*)::{{ row_type }} AS content
    FROM {{ table }}
    CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(({{ table }}.*)::{{ row_type }}, $2::jsonb) AS whole
    WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} $1::text::{{ id.bare }}
),
restored AS (
    UPDATE {{ table }}
    SET
{% for column in set_again %}
        {{ column }} = (had.content).{{ column }}{{ "," if not loop.last }}
{% endfor %}
    FROM had
    WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} $1::text::{{ id.bare }}
      AND ({{ table }}.*)::text IS DISTINCT FROM (had.content)::text
    RETURNING pg_catalog.to_jsonb({{ table }}.*) AS has
)
SELECT ARRAY(
    SELECT was.key
    FROM pg_catalog.jsonb_each($2::jsonb) AS was
    WHERE was.value::text IS DISTINCT FROM (restored.has OPERATOR(pg_catalog.->) was.key)::text
    ORDER BY was.key
) AS changed
FROM restored;
