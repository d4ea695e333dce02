-- Lets the rows of {{ name }} that stay take over columns from the rows that went for them: id (of a row that stays), filled (FALSE if something kept it as it was), whole (whether JSON holds all that it had before), in_key (whether it has the key that it had before).
{% for take in takes %}
-- {{ take.told | printable }}.
{% endfor %}
-- $1 ids {{ id.bare_type }}[], the rows that went, those of one key in the order in which they would have stayed
-- $2 kept {{ id.bare_type }}[], for each of them the row that stays
{% if before %}
-- $3 before text[], for each row that went what before.sql returned. Triggers may have changed it since.
-- $4 kept_before text[], the same for each row that stays, where it is first in $2, and else NULL
{% endif %}
-- They are read from the table merged, for a unique value must be gone before another row can have it. There
-- "filled" then tells what was taken over from each: what the row that stays had before, and has after. Of
-- what a trigger changed beside that, the first of the rows that gave something tells the values before.
-- OFFSET 0 keeps it one lookup for each row: a plan from when merged was small would read, and lock, all of it.
WITH these_pairs AS (
{% if before %}
    SELECT id, kept, before, kept_before, place
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[], $3::text[], $4::text[]) WITH ORDINALITY AS these_pairs (id, kept, before, kept_before, place)
{% else %}
    SELECT id, kept, place
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) WITH ORDINALITY AS these_pairs (id, kept, place)
{% endif %}
),
copies AS (
{% if before %}
    SELECT these_rows.kept, NULL::text AS gone, 0::bigint AS place, (whole.*)::{{ row_type }} AS content
    FROM (SELECT DISTINCT ON (kept) kept, kept_before FROM these_pairs ORDER BY kept, place) AS these_rows
    INNER JOIN {{ table }} ON {{ table }}.{{ id.sql }} {{ id.operator("=") }} these_rows.kept
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.jsonb_object_agg(was.key, was.value), '{}'::jsonb) AS columns
        FROM pg_catalog.jsonb_each(these_rows.kept_before::jsonb) AS was
        WHERE was.value::text IS DISTINCT FROM (pg_catalog.to_jsonb({{ table }}.*) OPERATOR(pg_catalog.->) was.key)::text
    ) AS had
    CROSS JOIN pg_catalog.jsonb_populate_record(({{ table }}.*)::{{ row_type }}, had.columns) AS whole
{% else %}
    SELECT {{ table }}.{{ id.sql }} AS kept, NULL::text AS gone, 0::bigint AS place, ({{ table }}.*)::{{ row_type }} AS content
    FROM {{ table }}
    WHERE {{ id.sql }} {{ id.operator("=") }} ANY ($2::{{ id.bare }}[])
{% endif %}
    UNION ALL
    SELECT these_pairs.kept, these_pairs.id::text, these_pairs.place, (whole.*)::{{ row_type }}
    FROM these_pairs
    CROSS JOIN LATERAL (
        SELECT merged.content
        FROM merged
        WHERE merged.resource = '{{ name }}'
          AND merged.id = these_pairs.id::text
        OFFSET 0
    ) AS went
    CROSS JOIN pg_catalog.jsonb_populate_record(NULL::{{ row_type }}, went.content{{ " OPERATOR(pg_catalog.||) coalesce(these_pairs.before::jsonb, '{}'::jsonb)" if before }}) AS whole
),
ranked AS (
    SELECT
        kept,
        place,
        content,
{% for take in takes %}
        pg_catalog.first_value(gone) OVER take_{{ loop.index }} AS gone_{{ loop.index }},
        pg_catalog.first_value(place) OVER take_{{ loop.index }} AS place_{{ loop.index }},
        pg_catalog.first_value(content) OVER take_{{ loop.index }} AS content_{{ loop.index }}{{ "," if not loop.last }}
{% endfor %}
    FROM copies
    WINDOW
{% for take in takes %}
        take_{{ loop.index }} AS (PARTITION BY kept ORDER BY {{ take.order("(content).") }}, place){{ "," if not loop.last }}
{% endfor %}
),
taken AS (
    SELECT kept, content, {% for take in takes %}gone_{{ loop.index }}, place_{{ loop.index }}, content_{{ loop.index }}{{ ", " if not loop.last }}{% endfor %}

    FROM ranked
    WHERE place OPERATOR(pg_catalog.=) 0::bigint
      AND pg_catalog.num_nonnulls({% for take in takes %}gone_{{ loop.index }}{{ ", " if not loop.last }}{% endfor %}) OPERATOR(pg_catalog.>) 0
),
filled AS (
    UPDATE {{ table }}
    SET
{% for number, _, column in taken %}
        {{ column }} = CASE WHEN taken.gone_{{ number }} IS NULL THEN {{ table }}.{{ column }} ELSE (taken.content_{{ number }}).{{ column }} END{{ "," if not loop.last }}
{% endfor %}
    FROM taken
    WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} taken.kept
    RETURNING {{ table }}.{{ id.as_id }}, ({{ table }}.*)::{{ row_type }} AS content
),
gave AS (
{% for take in takes %}
{{ "    UNION ALL\n" if not loop.first }}    SELECT kept, gone_{{ loop.index }} AS gone, place_{{ loop.index }} AS place, {{ take.names }} AS names
    FROM taken
    WHERE gone_{{ loop.index }} IS NOT NULL
{% endfor %}
),
beside AS (
    SELECT
        filled.id,
        (
            SELECT gave.gone
            FROM gave
            WHERE gave.kept {{ id.operator("=") }} filled.id
            ORDER BY gave.place
            LIMIT 1
        ) AS gone,
        pg_catalog.jsonb_object_agg(had.key, had.value) AS before
    FROM filled
    INNER JOIN taken ON taken.kept {{ id.operator("=") }} filled.id
    CROSS JOIN pg_catalog.jsonb_each(pg_catalog.to_jsonb(taken.content)) AS had
    WHERE had.value::text IS DISTINCT FROM (pg_catalog.to_jsonb(filled.content) OPERATOR(pg_catalog.->) had.key)::text
{% if generated %}
      AND had.key OPERATOR(pg_catalog.<>) ALL (ARRAY[{{ generated | map("literal") | join(", ") }}])
{% endif %}
      AND NOT EXISTS (
          SELECT
          FROM gave
          WHERE gave.kept {{ id.operator("=") }} filled.id
            AND had.key OPERATOR(pg_catalog.=) ANY (gave.names)
      )
    GROUP BY filled.id
),
recorded AS (
    UPDATE merged
    SET filled = coalesce(merged.filled, '{}'::jsonb) OPERATOR(pg_catalog.||) given.filled
    FROM (
        SELECT
            gave.gone,
            pg_catalog.jsonb_build_object(
                'before', pg_catalog.jsonb_object_agg(column_name, pg_catalog.to_jsonb(taken.content) OPERATOR(pg_catalog.->) column_name),
                'after', pg_catalog.jsonb_object_agg(column_name, pg_catalog.to_jsonb(filled.content) OPERATOR(pg_catalog.->) column_name)
            ) OPERATOR(pg_catalog.||) coalesce(
                (
                    SELECT pg_catalog.jsonb_build_object('beside', beside.before)
                    FROM beside
                    WHERE beside.gone OPERATOR(pg_catalog.=) gave.gone
                ),
                '{}'::jsonb
            ) AS filled
        FROM gave
        CROSS JOIN pg_catalog.unnest(gave.names) AS column_name
        INNER JOIN taken ON taken.kept {{ id.operator("=") }} gave.kept
        INNER JOIN filled ON filled.id {{ id.operator("=") }} gave.kept
        GROUP BY gave.gone
    ) AS given
    WHERE merged.resource = '{{ name }}'
      AND merged.id = given.gone
)
SELECT
    taken.kept AS id,
    filled.id IS NOT NULL AS filled,
{% for take in takes %}
    {{ "AND " if not loop.first }}(taken.gone_{{ loop.index }} IS NULL OR {{ take.row("(taken.content).") }} = {{ take.row("whole.") }}){{ " AS whole," if loop.last }}
{% endfor %}
{% for a, b in before_and_after %}
    {{ "AND " if not loop.first }}{{ a }} IS NOT DISTINCT FROM {{ b }}
{% endfor %}
{% if where %}
    AND ({{ where("(filled.content).") }}) IS TRUE
{% endif %}
    AS in_key
FROM taken
CROSS JOIN pg_catalog.jsonb_populate_record(NULL::{{ row_type }}, pg_catalog.to_jsonb(taken.content)) AS whole
LEFT JOIN filled ON filled.id {{ id.operator("=") }} taken.kept;
