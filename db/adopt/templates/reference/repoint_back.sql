-- Points rows of {{ reference.table }} back at the row of {{ name }} that is restored, if they still refer to the one that was kept: id.
-- $1 id text, the row that is restored
-- $2 kept text, the row that was kept in its place
-- $3 ids text[], the rows to point back
{% if reference.to_id %}
UPDATE {{ reference.table }}
SET {{ reference.column }} = $1::text::{{ id.bare }}
WHERE {{ reference.row_is_one_of("$3") }}
  AND {{ reference.column }} {{ id.operator("=") }} $2::text::{{ id.bare }}
RETURNING {{ reference.as_id() }};
{% else %}
UPDATE {{ reference.table }}
SET {{ reference.column }} = restored.{{ reference.target.sql }}
FROM {{ table }} AS restored
INNER JOIN {{ table }} AS staying ON staying.{{ id.sql }} {{ id.operator("=") }} $2::text::{{ id.bare }}
WHERE restored.{{ id.sql }} {{ id.operator("=") }} $1::text::{{ id.bare }}
  AND {{ reference.row_is_one_of("$3", reference.table ~ ".") }}
  AND {{ reference.table }}.{{ reference.column }} {{ reference.target.operator("=") }} staying.{{ reference.target.sql }}
RETURNING {{ reference.as_id(reference.table ~ ".") }};
{% endif %}
