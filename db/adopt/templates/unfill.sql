-- Puts back what the row of {{ name }} that was kept took over from the row with this id: name (of a column), outcome ('put back', 'not put back', 'changed' if it has changed since, or 'gone' if the row that was kept is).
-- $1 id text
-- Columns that were taken over together are put back together, and none that has changed since. Columns
-- that this file does not set, or that a trigger keeps, are not put back.
WITH taken AS (
    SELECT merged.kept::{{ id.bare }} AS kept, merged.filled
    FROM merged
    WHERE merged.resource = '{{ name }}'
      AND merged.id = $1::text
      AND merged.filled IS NOT NULL
),
there AS (
    SELECT
        taken.kept,
        (whole.*)::{{ row_type }} AS content,
        pg_catalog.to_jsonb({{ table }}.*) AS has,
        ARRAY(
            SELECT had.key
            FROM pg_catalog.jsonb_each(taken.filled OPERATOR(pg_catalog.->) 'after'::text) AS had
            WHERE had.value::text OPERATOR(pg_catalog.=) (pg_catalog.to_jsonb({{ table }}.*) OPERATOR(pg_catalog.->) had.key)::text
        ) AS unchanged,
        ARRAY(
            SELECT had.key
            FROM pg_catalog.jsonb_each(taken.filled OPERATOR(pg_catalog.->) 'after'::text) AS had
            WHERE had.value::text IS DISTINCT FROM (pg_catalog.to_jsonb({{ table }}.*) OPERATOR(pg_catalog.->) had.key)::text
        ) AS changed
    FROM taken
    INNER JOIN {{ table }} ON {{ table }}.{{ id.sql }} {{ id.operator("=") }} taken.kept
    CROSS JOIN pg_catalog.jsonb_populate_record(({{ table }}.*)::{{ row_type }}, taken.filled OPERATOR(pg_catalog.->) 'before'::text) AS whole
),
restored AS (
    UPDATE {{ table }}
    SET
{% for _, take, column in taken %}
        {{ column }} = CASE WHEN there.unchanged OPERATOR(pg_catalog.@>) {{ take.names }} THEN (there.content).{{ column }} ELSE {{ table }}.{{ column }} END{{ "," if not loop.last }}
{% endfor %}
    FROM there
    WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} there.kept
      AND pg_catalog.cardinality(there.unchanged) OPERATOR(pg_catalog.>) 0
    RETURNING pg_catalog.to_jsonb({{ table }}.*) AS has
),
is_now AS (
    SELECT
        taken.kept,
        taken.filled,
        there.kept IS NULL AS gone,
        there.changed,
        coalesce(restored.has, there.has) AS has
    FROM taken
    LEFT JOIN there ON TRUE
    LEFT JOIN restored ON TRUE
)
SELECT
    had.key AS name,
    CASE
        WHEN is_now.gone THEN 'gone'
        WHEN is_now.changed OPERATOR(pg_catalog.&&) coalesce(groups.names, ARRAY[had.key]) THEN 'changed'
        WHEN had.value::text OPERATOR(pg_catalog.=) (is_now.has OPERATOR(pg_catalog.->) had.key)::text THEN 'put back'
        ELSE 'not put back'
    END AS outcome
FROM is_now
CROSS JOIN pg_catalog.jsonb_each(is_now.filled OPERATOR(pg_catalog.->) 'before'::text) AS had
LEFT JOIN (
    VALUES
{% for take in takes %}
        ({{ take.names }}){{ "," if not loop.last }}
{% endfor %}
) AS groups (names) ON had.key OPERATOR(pg_catalog.=) ANY (groups.names)
ORDER BY name;
