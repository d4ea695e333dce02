-- The keys that several rows of {{ name }} share, those with the most rows first: resource, id (of the row that stays), key, copies (how many rows), first_created_at, last_created_at, referring (how many rows of other tables refer to them), total (how many such keys), surplus (how many rows beyond one for each key).
SELECT
    '{{ name }}' AS resource,
{% if keep.elements %}
    (
        SELECT these_rows.{{ id.sql }}
        FROM {{ table }} AS these_rows
        WHERE these_rows.{{ id.sql }} {{ id.operator("=") }} ANY (pg_catalog.array_agg({{ table }}.{{ id.sql }}))
        ORDER BY {{ order("these_rows.") }}
        LIMIT 1
    ) AS id,
{% else %}
    (pg_catalog.array_agg({{ id.sql }} ORDER BY {{ id.sql }}))[1] AS id,
{% endif %}
    pg_catalog.jsonb_build_object({% for part in key %}{{ literal(part.column.name) }}, {{ part.value }}{{ ", " if not loop.last }}{% endfor %}) AS key,
    count(*) AS copies,
    {{ "pg_catalog.min(" ~ created_at ~ ")" if created_at else "NULL::timestamptz" }} AS first_created_at,
    {{ "pg_catalog.max(" ~ created_at ~ ")" if created_at else "NULL::timestamptz" }} AS last_created_at,
{% for reference in references %}
    {{ "+ " if not loop.first }}(
        SELECT count(*)
        FROM {{ reference.table }} AS these_rows
        WHERE these_rows.{{ reference.column }} {{ reference.target.operator("=") }} ANY (pg_catalog.array_agg({{ table }}.{{ reference.target.sql }}))
    ){{ " AS referring," if loop.last }}
{% else %}
    0::bigint AS referring,
{% endfor %}
    count(*) OVER () AS total,
    sum(count(*) - 1) OVER ()::bigint AS surplus
FROM {{ table }}
{% for condition in in_key() %}
{{ "WHERE" if loop.first else "  AND" }} {{ condition }}
{% endfor %}
GROUP BY {{ partition }}
HAVING count(*) > 1
ORDER BY count(*) DESC, id;
