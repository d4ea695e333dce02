{% set content = "($2::jsonb OPERATOR(pg_catalog.-) ARRAY[" ~ own_columns | join(", ") ~ "])" if own_columns else "$2::jsonb" %}
-- Gives a row of {{ name }} that came back its own values again, where a trigger changed it as rows were pointed at it: changed (the columns that are not as they were even so). No row if nothing has changed it.
-- $1 id text
-- $2 content jsonb, what it had
{% if own_columns %}
-- What refers to the table itself was pointed back, and is left as it is.
{% endif %}
WITH had AS (
    SELECT (whole.*)::{{ row_type }} AS content
    FROM {{ table }}
    CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(({{ table }}.*)::{{ row_type }}, {{ content }}) AS whole
    WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} $1::text::{{ id.bare }}
),
settled AS (
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
    FROM pg_catalog.jsonb_each({{ content }}) AS was
    WHERE was.value::text IS DISTINCT FROM (settled.has OPERATOR(pg_catalog.->) was.key)::text
    ORDER BY was.key
) AS changed
FROM settled;
