-- Points rows of {{ reference.table }} at the rows of {{ name }} that stay, instead of those that go: id (of a row that goes), moved (the rows that referred to it).
-- $1 ids {{ id.bare_type }}[], the rows that go
-- $2 kept {{ id.bare_type }}[], for each of them the row that stays
{% if reference.named %}
-- refers to {{ reference.target.sql | printable }} without a foreign key
{% endif %}
WITH these_pairs AS (
{% if reference.to_id %}
    SELECT id, kept
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) AS these_pairs (id, kept)
{% else %}
    SELECT these_pairs.id, going.{{ reference.target.sql }} AS value, staying.{{ reference.target.sql }} AS kept
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) AS these_pairs (id, kept)
    INNER JOIN {{ table }} AS going ON going.{{ id.sql }} {{ id.operator("=") }} these_pairs.id
    INNER JOIN {{ table }} AS staying ON staying.{{ id.sql }} {{ id.operator("=") }} these_pairs.kept
    WHERE going.{{ reference.target.sql }} {{ reference.target.operator("<>") }} staying.{{ reference.target.sql }}
{% endif %}
),
moved AS (
    UPDATE {{ reference.table }}
    SET {{ reference.column }} = these_pairs.kept
    FROM these_pairs
    WHERE {{ reference.table }}.{{ reference.column }} {{ reference.target.operator("=") }} these_pairs.{{ "id" if reference.to_id else "value" }}
    RETURNING {{ reference.as_id(reference.table ~ ".") }}, these_pairs.id AS was
)
SELECT was AS id, pg_catalog.array_agg(id::text ORDER BY id) AS moved
FROM moved
GROUP BY was;
