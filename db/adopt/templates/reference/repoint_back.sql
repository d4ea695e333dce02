-- Points rows of {{ reference.table }} back at the row of {{ name }} that is restored, if they still refer to the one that was kept: id.
-- $1 id text, the row that is restored
-- $2 kept text, the row that was kept in its place
-- $3 ids text[], the rows to point back
{% if own_column %}
-- One that went itself is pointed back where it is, in the table merged{{ ", without what is generated anew" if generated }}.
{% endif %}
{% if reference.to_id and not own_column %}
UPDATE {{ reference.table }}
SET {{ reference.column }} = $1::text::{{ id.bare }}
WHERE {{ reference.row_is_one_of("$3") }}
  AND {{ reference.column }} {{ id.operator("=") }} $2::text::{{ id.bare }}
RETURNING {{ reference.as_id() }};
{% else %}
WITH these AS (
{% if reference.to_id %}
    SELECT $1::text::{{ id.bare }} AS restored, $2::text::{{ id.bare }} AS kept
{% else %}
    SELECT restored.{{ reference.target.sql }} AS restored, staying.{{ reference.target.sql }} AS kept
    FROM {{ table }} AS restored
    CROSS JOIN {{ table }} AS staying
    WHERE restored.{{ id.sql }} {{ id.operator("=") }} $1::text::{{ id.bare }}
      AND staying.{{ id.sql }} {{ id.operator("=") }} $2::text::{{ id.bare }}
{% endif %}
),
back AS (
    UPDATE {{ reference.table }}
    SET {{ reference.column }} = these.restored
    FROM these
    WHERE {{ reference.row_is_one_of("$3", reference.table ~ ".") }}
      AND {{ reference.table }}.{{ reference.column }} {{ reference.target.operator("=") }} these.kept
    RETURNING {{ reference.as_id(reference.table ~ ".") }}
){{ "," if own_column }}
{% if own_column %}
back_in_merged AS (
    UPDATE merged
    SET content = pg_catalog.jsonb_set(merged.content{{ " OPERATOR(pg_catalog.-) ARRAY[" ~ generated | map("literal") | join(", ") ~ "]" if generated }}, ARRAY[{{ own_column }}], pg_catalog.to_jsonb(these.restored))
    FROM these
    WHERE merged.resource = '{{ name }}'
      AND merged.id = ANY ($3::text[])
      AND merged.content OPERATOR(pg_catalog.->) {{ own_column }} OPERATOR(pg_catalog.=) pg_catalog.to_jsonb(these.kept)
    RETURNING merged.id
)
SELECT id::text AS id
FROM back
UNION ALL
SELECT id
FROM back_in_merged;
{% else %}
SELECT id
FROM back;
{% endif %}
{% endif %}
