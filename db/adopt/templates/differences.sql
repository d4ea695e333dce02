-- Where the rows of {{ name }} that share a key differ, those with the most rows first, a row for each key and column: resource, id (of the row that stays), key, copies (how many rows), column_name, ids (of the rows, in the order in which they would stay), values (of the column in these rows).
-- Values are compared as JSON writes them, as in equal.sql: 1.0 and 1.00 differ.
WITH ranked AS (
    SELECT
        {{ id.as_id }},
        pg_catalog.jsonb_build_object({% for part in key %}{{ literal(part.column.name) }}, {{ part.value }}{{ ", " if not loop.last }}{% endfor %}) AS key,
        count(*) OVER (PARTITION BY {{ partition }}) AS copies,
        pg_catalog.first_value({{ id.sql }}) OVER by_key AS kept,
        pg_catalog.row_number() OVER by_key AS place
    FROM {{ table }}
{% for condition in in_key() %}
    {{ "WHERE" if loop.first else "  AND" }} {{ condition }}
{% endfor %}
    WINDOW by_key AS (PARTITION BY {{ partition }} ORDER BY {{ order(table ~ ".") }})
)
SELECT
    '{{ name }}' AS resource,
    ranked.kept AS id,
    ranked.key,
    ranked.copies,
    have.key AS column_name,
    pg_catalog.array_agg(ranked.id::text ORDER BY ranked.place) AS ids,
    pg_catalog.array_agg(have.value OPERATOR(pg_catalog.#>>) '{}'::text[] ORDER BY ranked.place) AS values
FROM ranked
INNER JOIN {{ table }} ON {{ table }}.{{ id.sql }} {{ id.operator("=") }} ranked.id
CROSS JOIN pg_catalog.jsonb_each(pg_catalog.to_jsonb({{ table }}.*)) AS have
WHERE ranked.copies > 1
  AND have.key OPERATOR(pg_catalog.<>) ALL (ARRAY[{{ not_compared | map("literal") | join(", ") }}])
GROUP BY ranked.kept, ranked.key, ranked.copies, have.key
HAVING pg_catalog.count(DISTINCT have.value::text) > 1
ORDER BY ranked.copies DESC, ranked.kept, have.key;
