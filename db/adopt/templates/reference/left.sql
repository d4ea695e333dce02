{% if reference.to_id %}
-- A row of {{ reference.table }} that still refers to one of these rows, and would be deleted with it: id. No row if there is none.
-- $1 ids {{ id.bare_type }}[]
SELECT {{ reference.as_id() }}
FROM {{ reference.table }}
WHERE {{ reference.column }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[])
LIMIT 1;
{% else %}
-- A row of {{ reference.table }} that refers to one of these rows, and would refer to none: id. No row if there is none.
-- $1 ids {{ id.bare_type }}[], the rows that go
-- $2 kept {{ id.bare_type }}[], for each of them the row that stays
SELECT {{ reference.as_id(reference.table ~ ".") }}
FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) AS these_pairs (id, kept)
INNER JOIN {{ table }} AS going ON going.{{ id.sql }} {{ id.operator("=") }} these_pairs.id
INNER JOIN {{ table }} AS staying ON staying.{{ id.sql }} {{ id.operator("=") }} these_pairs.kept
INNER JOIN {{ reference.table }} ON {{ reference.table }}.{{ reference.column }} {{ reference.target.operator("=") }} going.{{ reference.target.sql }}
WHERE (going.{{ reference.target.sql }} {{ reference.target.operator("=") }} staying.{{ reference.target.sql }}) IS NOT TRUE
LIMIT 1;
{% endif %}
