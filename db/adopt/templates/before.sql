-- Rows of {{ name }} as they are before rows that refer to them are pointed elsewhere, which may fire triggers: before (the rows as JSON, by their ids), whole (whether the JSON holds all that is needed of them).
-- $1 ids {{ id.bare_type }}[], the rows that go
{% if takes %}
-- $2 kept {{ id.bare_type }}[], the rows that stay, of which only the columns are needed that they may take over
{% endif %}
SELECT
    pg_catalog.jsonb_object_agg({{ table }}.{{ id.sql }}::text, pg_catalog.to_jsonb({{ table }}.*))::text AS before,
    pg_catalog.bool_and(
{% if takes %}
        CASE
            WHEN {{ table }}.{{ id.sql }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[]) THEN ({{ table }}.*)::text = (whole.*)::text
            ELSE {% for take in takes %}{{ " AND " if not loop.first }}{{ take.row(table ~ ".") }} = {{ take.row("whole.") }}{% endfor %}

        END
{% else %}
        ({{ table }}.*)::text = (whole.*)::text
{% endif %}
    ) AS whole
FROM ONLY {{ table }}
CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::{{ row_type }}, pg_catalog.to_jsonb({{ table }}.*)) AS whole
WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[]{{ " OPERATOR(pg_catalog.||) $2::" ~ id.bare ~ "[]" if takes }});
