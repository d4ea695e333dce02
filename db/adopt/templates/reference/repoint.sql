-- Points rows of {{ reference.table }} at the rows of {{ name }} that stay, instead of those that go: id (of a row that goes), moved (the rows that referred to it).
-- $1 ids {{ id.bare_type }}[], the rows that go
-- $2 kept {{ id.bare_type }}[], for each of them the row that stays
{% if reference.named %}
-- refers to {{ reference.target.sql | printable }} without a foreign key
{% endif %}
{% if reference.to_id %}
WITH these_pairs AS (
    SELECT id, kept
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) AS these_pairs (id, kept)
{% else %}
-- A value that a row of another key has, too, is left alone, and then left.sql finds it.
WITH all_pairs AS MATERIALIZED (
    SELECT id, kept
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) AS all_pairs (id, kept)
),
these_pairs AS (
    SELECT these_pairs.id, going.{{ reference.target.sql }} AS value, staying.{{ reference.target.sql }} AS kept
    FROM all_pairs AS these_pairs
    INNER JOIN {{ table }} AS going ON going.{{ id.sql }} {{ id.operator("=") }} these_pairs.id
    INNER JOIN {{ table }} AS staying ON staying.{{ id.sql }} {{ id.operator("=") }} these_pairs.kept
    WHERE going.{{ reference.target.sql }} {{ reference.target.operator("<>") }} staying.{{ reference.target.sql }}
      AND NOT EXISTS (
          SELECT
          FROM {{ table }} AS other
          LEFT JOIN all_pairs ON all_pairs.id {{ id.operator("=") }} other.{{ id.sql }}
          WHERE other.{{ reference.target.sql }} {{ reference.target.operator("=") }} going.{{ reference.target.sql }}
            AND coalesce(all_pairs.kept, other.{{ id.sql }}) {{ id.operator("<>") }} these_pairs.kept
      )
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
