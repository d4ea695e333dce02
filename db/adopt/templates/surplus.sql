-- The rows of {{ name }} that share a key with one of these rows and {{ "are not the first by --keep" if keep.elements else "do not have the lowest id" }} of that key: id, kept ({{ stays }}).
-- $1 ids {{ id.bare_type }}[]
-- The rows are found by the hash, as in select.sql, so that the predicate locks are one page for each key.
WITH these_keys AS MATERIALIZED (
    SELECT DISTINCT {{ key_listed() | join(", ") }}
    FROM {{ table }}
    WHERE {{ id.sql }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[])
),
same_key AS MATERIALIZED (
    SELECT {{ table }}.{{ id.as_id }}, {{ (key_names("these_keys.") + order_listed(table ~ ".", keys=True)) | join(", ") }}
    FROM these_keys
    INNER JOIN {{ table }}
        ON {{ same(stored(table ~ "."), of("these_keys."), 11) }}
{% if where %}
       AND {{ where.fenced(table ~ ".") }}
{% endif %}
),
ranked AS (
{% if keep.elements %}
    SELECT id, pg_catalog.first_value(id) OVER by_key AS kept, pg_catalog.row_number() OVER by_key AS place
    FROM same_key
    WINDOW by_key AS (PARTITION BY {{ key_names() | join(", ") }} ORDER BY {{ order_in("same_key", keys=True) }})
{% else %}
    SELECT id, pg_catalog.first_value(id) OVER (PARTITION BY {{ key_names() | join(", ") }} ORDER BY {{ order_in("same_key", keys=True) }}) AS kept
    FROM same_key
{% endif %}
)
SELECT id, kept
FROM ranked
WHERE id {{ id.operator("<>") }} kept
ORDER BY {{ "place, " if keep.elements }}id;
