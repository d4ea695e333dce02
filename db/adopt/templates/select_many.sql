-- The rows of {{ name }} with these keys, {{ stays }} where several share one, and how many do: {{ answered }}, copies bigint. One row for each key, in their order; copies is 0, and the rest is NULL, if a key has none.
{% for part in key %}
-- ${{ loop.index }} {{ part.column.arrays(optional=part.column.optional) }}
{% endfor %}
-- Each key is looked for by {{ name }}_lookup, as in select.sql.
WITH these_keys AS MATERIALIZED (
    SELECT {{ key | map(attribute="column") | map(attribute="as_collated") | join(", ") }}, {{ item }}
    FROM {{ unnest(key | map(attribute="column") | list) }}
        WITH ORDINALITY AS these_keys ({{ key_names() | join(", ") }}, {{ item }})
),
same_key AS MATERIALIZED (
    SELECT these_keys.{{ item }}, count(*) OVER (PARTITION BY these_keys.{{ item }}) AS copies, {{ ([listed_of(table ~ ".")] + order_listed(table ~ ".", keys=False)) | join(", ") }}
    FROM these_keys
    INNER JOIN {{ table }}
        ON {{ same(stored(table ~ "."), given_in("these_keys."), 11) }}
{% if where %}
       AND {{ where.fenced(table ~ ".") }}
{% endif %}
),
first_row AS (
    SELECT DISTINCT ON ({{ item }}) {{ item }}, copies, {{ names }}
    FROM same_key
    ORDER BY {{ item }}, {{ order_in("same_key", keys=False, when="copies > 1") }}
)
SELECT {{ names_of("first_row.") }}, coalesce(first_row.copies, 0) AS copies
FROM these_keys
LEFT JOIN first_row ON first_row.{{ item }} = these_keys.{{ item }}
ORDER BY these_keys.{{ item }};
