{% set step, kept, merged_at = free("step"), free("kept"), free("merged_at") %}
-- The rows of {{ name }} that merge moved into the row with this id, and into those in turn, the first one first, one more than the limit if there are more: {{ answered }}, {{ step }} bigint, {{ kept }} {{ id.type }}, {{ merged_at }} timestamp with time zone.
-- $1 id {{ id.type }}{{ id.one_of }}
-- $2 after bigint, or NULL for the start
-- $3 limit bigint
-- The types have no length or digits, because a column may have been made narrower since.
-- OFFSET 0 keeps it one lookup for each row, as in kept.sql.
WITH RECURSIVE moved AS (
    SELECT merged.id
    FROM merged
    WHERE merged.resource = '{{ name }}'
      AND merged.kept = $1::{{ id.bare }}::text
    UNION
    SELECT before.id
    FROM moved
    CROSS JOIN LATERAL (
        SELECT merged.id
        FROM merged
        WHERE merged.resource = '{{ name }}'
          AND merged.kept = moved.id
        OFFSET 0
    ) AS before
)
SELECT {{ listed_of("whole.") }}, merged.step AS {{ step }}, merged.kept::{{ id.bare }} AS {{ kept }}, merged.merged_at AS {{ merged_at }}
FROM moved
CROSS JOIN LATERAL (
    SELECT merged.step, merged.kept, merged.merged_at, merged.content{{ " OPERATOR(pg_catalog.||) coalesce(merged.filled OPERATOR(pg_catalog.->) 'own'::text, '{}'::jsonb) AS content" if before }}
    FROM merged
    WHERE merged.resource = '{{ name }}'
      AND merged.id = moved.id
    OFFSET 0
) AS merged
CROSS JOIN pg_catalog.jsonb_to_record(merged.content) AS whole ({{ answered_bare }})
WHERE ($2::bigint IS NULL OR merged.step > $2::bigint)
ORDER BY merged.step
LIMIT $3::bigint + 1;
