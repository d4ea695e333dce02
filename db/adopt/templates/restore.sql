-- Puts a row of {{ name }} back, with all of its columns, and takes it out of the table merged: kept, pointed, filled (what the row that was kept took over from it){{ ", beside (what a trigger changed in that one, as it was)" if takes }}{{ ", own (what a trigger changed in this row, as it was)" if before }}, changed (the columns that are not as they were).
-- $1 id text
WITH taken AS (
    DELETE FROM merged
    WHERE resource = {{ literal(name) }}
      AND id = $1::text
    RETURNING kept, content, pointed, filled
),
restored AS (
{% if stored_columns %}
    -- The generated columns are left out, because PostgreSQL computes them again.
    INSERT INTO {{ table }} ({{ stored_columns | join(", ") }}) OVERRIDING SYSTEM VALUE
    SELECT {% for each in stored_columns %}whole.{{ each }}{{ ", " if not loop.last }}{% endfor %}

{% else %}
    INSERT INTO {{ table }} OVERRIDING SYSTEM VALUE
    SELECT whole.*
{% endif %}
    FROM taken
    CROSS JOIN pg_catalog.jsonb_populate_record(NULL::{{ row_type }}, content) AS whole
    RETURNING pg_catalog.to_jsonb({{ table }}.*) AS restored
)
SELECT
    kept,
    pointed,
    filled,
{% if takes %}
    (filled OPERATOR(pg_catalog.->) 'beside'::text)::text AS beside,
{% endif %}
{% if before %}
    (filled OPERATOR(pg_catalog.->) 'own'::text)::text AS own,
{% endif %}
    ARRAY(
        SELECT was.key
        FROM jsonb_each(content) AS was
        WHERE was.value IS DISTINCT FROM restored -> was.key
    ) AS changed
FROM taken
LEFT JOIN restored ON TRUE;
