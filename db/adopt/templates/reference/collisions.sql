-- The rows of {{ child.name }} that will share a key with {{ child.stays if child.keep.elements else "a lower id" }} once these rows of {{ name }} are merged: id, kept ({{ child.stays }} of the key).
-- $1 ids {{ id.bare_type }}[], the rows that go
-- $2 kept {{ id.bare_type }}[], for each of them the row that stays
-- Rows that have the key already are found by its hash, as in select.sql, so that the lookup's index serves it.
WITH these_pairs AS (
    SELECT id, kept
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) AS these_pairs (id, kept)
),
moving AS MATERIALIZED (
    SELECT {{ child.table }}.{{ child.id.as_id }}, {{ (child.key_listed(child.table ~ ".", reference.column, "these_pairs.kept") + child.order_listed(child.table ~ ".", keys=True)) | join(", ") }}
    FROM these_pairs
    INNER JOIN {{ child.table }} ON {{ child.table }}.{{ reference.column }} {{ id.operator("=") }} these_pairs.id
{% for condition in child.in_key(child.table ~ ".", reference.column) %}
    {{ "WHERE" if loop.first else "  AND" }} {{ condition }}
{% endfor %}
),
staying AS (
    SELECT {{ child.table }}.{{ child.id.as_id }}, {{ (child.key_names("these_keys.") + child.order_listed(child.table ~ ".", keys=True)) | join(", ") }}
    FROM (SELECT DISTINCT {{ child.key_names() | join(", ") }} FROM moving) AS these_keys
    INNER JOIN {{ child.table }}
        ON {{ same(child.stored(child.table ~ "."), child.of("these_keys."), 11) }}
{% if child.where %}
       AND {{ child.where.fenced(child.table ~ ".") }}
{% endif %}
),
together AS (
    SELECT {{ (["id"] + child.key_names() + child.order_names) | join(", ") }}
    FROM moving
    UNION ALL
    SELECT {{ (["id"] + child.key_names() + child.order_names) | join(", ") }}
    FROM staying
),
ranked AS (
{% if child.keep.elements %}
    SELECT id, pg_catalog.first_value(id) OVER by_key AS kept, pg_catalog.row_number() OVER by_key AS place
    FROM together
    WINDOW by_key AS (PARTITION BY {{ child.key_names() | join(", ") }} ORDER BY {{ child.order_in("together", keys=True) }})
{% else %}
    SELECT id, pg_catalog.first_value(id) OVER (PARTITION BY {{ child.key_names() | join(", ") }} ORDER BY {{ child.order_in("together", keys=True) }}) AS kept
    FROM together
{% endif %}
)
SELECT id, kept
FROM ranked
WHERE id {{ child.id.operator("<>") }} kept
ORDER BY {{ "place, " if child.keep.elements }}id;
