-- The row of {{ name }} with this key, {{ stays }} where several share it, and how many do: {{ answered }}, copies bigint. No row if there is none.
{% for each in key_parameters %}
-- ${{ loop.index }} {{ each }}
{% endfor %}
-- The condition needs no hash, because these engines lock the keys that were looked at, and no pages.
SELECT {{ listed }}, count(*) OVER () AS copies
FROM {{ table }}
{% for condition in equal %}
{{ "WHERE" if loop.first else "  AND" }} {{ condition }}
{% endfor %}
ORDER BY {{ order(table ~ ".") }}
LIMIT 1;
