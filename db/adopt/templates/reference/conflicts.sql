-- The rows of {{ reference.table }} that could not refer to the rows of {{ name }} that stay, because a unique index allows no second row: id, kept (the row that is in the way), stays (the row of {{ name }} to which both would refer).
{% for unique in reference.uniques %}
-- {{ unique.told | printable }}
{% endfor %}
-- $1 ids {{ id.bare_type }}[], the rows that go
-- $2 kept {{ id.bare_type }}[], for each of them the row that stays
{% if reference.absorbed %}
-- These rows are moved into the table merged, by remove.sql.
{% else %}
-- Where there are some, the key stays as it is. `python -m db adopt --absorb {{ reference.folder }}` would move them into the table merged.
{% endif %}
WITH these_pairs AS (
{% if reference.to_id %}
    SELECT id AS going, kept, place, id AS value, kept AS kept_value
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) WITH ORDINALITY AS these_pairs (id, kept, place)
    UNION ALL
    SELECT DISTINCT kept, kept, 0::bigint, kept, kept
    FROM pg_catalog.unnest($2::{{ id.bare }}[]) AS staying (kept)
{% else %}
    SELECT these_pairs.id AS going, these_pairs.kept, these_pairs.place, going.{{ reference.target.sql }} AS value, staying.{{ reference.target.sql }} AS kept_value
    FROM (
        SELECT id, kept, place
        FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) WITH ORDINALITY AS these_pairs (id, kept, place)
        UNION ALL
        SELECT DISTINCT kept, kept, 0::bigint
        FROM pg_catalog.unnest($2::{{ id.bare }}[]) AS staying (kept)
    ) AS these_pairs
    INNER JOIN {{ table }} AS going ON going.{{ id.sql }} {{ id.operator("=") }} these_pairs.id
    INNER JOIN {{ table }} AS staying ON staying.{{ id.sql }} {{ id.operator("=") }} these_pairs.kept
{% endif %}
),
{% for unique in reference.uniques %}
there_{{ loop.index }} AS (
    SELECT {{ reference.column }} AS refers, {{ reference.row() }}::text AS id{% for other in unique.others %}, {{ other }} AS part_{{ loop.index }}{% endfor %}{% for column in reference.key %}, {{ column.sql }} AS key_{{ loop.index }}{% endfor %}

    FROM {{ reference.table }}
    WHERE {{ reference.column }} {{ reference.target.operator("=") }} ANY (ARRAY(SELECT value FROM these_pairs))
{% if unique.predicate %}
      AND {{ unique.predicate }}
{% endif %}
),
ranked_{{ loop.index }} AS (
    SELECT
        there_{{ loop.index }}.id,
        pg_catalog.first_value({{ reference.row_of("there_" ~ loop.index ~ ".key_", "these_pairs.kept_value") }}::text) OVER by_place AS kept,
        these_pairs.kept AS stays,
        pg_catalog.row_number() OVER by_place AS place
    FROM these_pairs
    INNER JOIN there_{{ loop.index }} ON refers {{ reference.target.operator("=") }} these_pairs.value
{% if not unique.nulls_equal %}
{% for other in unique.others %}
    {{ "WHERE" if loop.first else "  AND" }} part_{{ loop.index }} IS NOT NULL
{% endfor %}
{% endif %}
    WINDOW by_place AS (
        PARTITION BY these_pairs.kept{% for other in unique.others %}, part_{{ loop.index }}{% endfor %}

        ORDER BY these_pairs.place, there_{{ loop.index }}.id
    )
){{ "," if not loop.last }}
{% endfor %}
SELECT DISTINCT ON (id) id, kept, stays
FROM (
{% for unique in reference.uniques %}
    {{ "UNION ALL " if not loop.first }}SELECT id, kept, stays, place FROM ranked_{{ loop.index }}
{% endfor %}
) AS ranked
WHERE place > 1
ORDER BY id;
