-- What merge would do to {{ name }}{{ " once the rows that they refer to are merged" if parents }}: keys (how many would keep one row), removed (how many rows), referring (how many rows refer to those).
WITH {% for parent in parents %}{{ parent.alias }} AS (
    SELECT {{ parent.id.as_id }}, pg_catalog.first_value({{ parent.id.sql }}) OVER (PARTITION BY {{ parent.partition | join(", ") }} ORDER BY {{ parent.order }}) AS kept
    FROM {{ parent.table }}
),
{% endfor %}
ranked AS (
    SELECT
        {{ table }}.{{ id.as_id }},
        pg_catalog.first_value({{ table }}.{{ id.sql }}) OVER (PARTITION BY {{ kept_key | join(", ") }} ORDER BY {{ order(table ~ ".") }}) AS kept
    FROM {{ table }}
{% for parent in parents %}
    {{ "LEFT" if parent.optional else "INNER" }} JOIN {{ parent.alias }} ON {{ parent.alias }}.id {{ parent.id.operator("=") }} {{ table }}.{{ parent.column }}
{% endfor %}
{% for condition in in_key(table ~ ".") %}
    {{ "WHERE" if loop.first else "  AND" }} {{ condition }}
{% endfor %}
),
surplus AS (
    SELECT id, kept
    FROM ranked
    WHERE id {{ id.operator("<>") }} kept
)
SELECT
    pg_catalog.count(DISTINCT kept) AS keys,
    count(*) AS removed,
{% for reference in references %}
    {{ "+ " if not loop.first }}(
        SELECT count(*)
        FROM {{ reference.table }}
{% if reference.to_id %}
        INNER JOIN surplus ON surplus.id {{ id.operator("=") }} {{ reference.table }}.{{ reference.column }}
{% else %}
        INNER JOIN {{ table }} AS going ON going.{{ reference.target.sql }} {{ reference.target.operator("=") }} {{ reference.table }}.{{ reference.column }}
        INNER JOIN surplus ON surplus.id {{ id.operator("=") }} going.{{ id.sql }}
{% endif %}
    ){{ " AS referring" if loop.last }}
{% else %}
    0::bigint AS referring
{% endfor %}
FROM surplus;
