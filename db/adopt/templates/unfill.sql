-- Puts back what the row of {{ name }} that was kept took over from the row with this id: name (of a column). Columns that have changed since stay as they are.
-- $1 id text
-- Columns that were taken over together are put back together.
WITH taken AS (
    SELECT
        merged.kept::{{ id.bare }} AS kept,
        (whole.*)::{{ row_type }} AS content,
        merged.filled OPERATOR(pg_catalog.->) 'after'::text AS after
    FROM merged
    CROSS JOIN pg_catalog.jsonb_populate_record(NULL::{{ row_type }}, merged.filled OPERATOR(pg_catalog.->) 'before'::text) AS whole
    WHERE merged.resource = '{{ name }}'
      AND merged.id = $1::text
      AND merged.filled IS NOT NULL
),
unchanged AS (
    SELECT
        taken.kept,
        taken.content,
        ARRAY(
            SELECT had.key
            FROM pg_catalog.jsonb_each(taken.after) AS had
            WHERE had.value OPERATOR(pg_catalog.=) (pg_catalog.to_jsonb({{ table }}.*) OPERATOR(pg_catalog.->) had.key)
        ) AS names
    FROM taken
    INNER JOIN {{ table }} ON {{ table }}.{{ id.sql }} {{ id.operator("=") }} taken.kept
),
restored AS (
    UPDATE {{ table }}
    SET
{% for _, take, column in taken %}
        {{ column }} = CASE WHEN unchanged.names OPERATOR(pg_catalog.@>) {{ take.names }} THEN (unchanged.content).{{ column }} ELSE {{ table }}.{{ column }} END{{ "," if not loop.last }}
{% endfor %}
    FROM unchanged
    WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} unchanged.kept
      AND pg_catalog.cardinality(unchanged.names) OPERATOR(pg_catalog.>) 0
    RETURNING unchanged.names
)
SELECT column_name AS name
FROM restored
CROSS JOIN (
    VALUES
{% for take in takes %}
        ({{ loop.index }}, {{ take.names }}){{ "," if not loop.last }}
{% endfor %}
) AS takes (number, names)
CROSS JOIN pg_catalog.unnest(takes.names) AS column_name
WHERE restored.names OPERATOR(pg_catalog.@>) takes.names
ORDER BY number, name;
