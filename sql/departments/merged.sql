-- The rows of departments that merge moved into the row with this id, and into those in turn, the first one first, one more than the limit if there are more: id bigint, name text, created_at timestamp with time zone, step bigint, kept bigint, merged_at timestamp with time zone.
-- $1 id bigint
-- $2 after bigint, or NULL for the start
-- $3 limit bigint
-- The types have no length or digits, because a column may have been made narrower since.
-- OFFSET 0 keeps it one lookup for each row, as in kept.sql.
WITH RECURSIVE moved AS (
    SELECT merged.id
    FROM merged
    WHERE merged.resource = 'departments'
      AND merged.kept = $1::bigint::text
    UNION
    SELECT before.id
    FROM moved
    CROSS JOIN LATERAL (
        SELECT merged.id
        FROM merged
        WHERE merged.resource = 'departments'
          AND merged.kept = moved.id
        OFFSET 0
    ) AS before
)
SELECT whole.id, whole.name, whole.created_at, merged.step AS step, merged.kept::bigint AS kept, merged.merged_at AS merged_at
FROM moved
CROSS JOIN LATERAL (
    SELECT merged.step, merged.kept, merged.merged_at, merged.content OPERATOR(pg_catalog.||) coalesce(merged.filled OPERATOR(pg_catalog.->) 'own'::text, '{}'::jsonb) AS content
    FROM merged
    WHERE merged.resource = 'departments'
      AND merged.id = moved.id
    OFFSET 0
) AS merged
CROSS JOIN pg_catalog.jsonb_to_record(merged.content) AS whole (id bigint, name text, created_at timestamptz)
WHERE ($2::bigint IS NULL OR merged.step > $2::bigint)
ORDER BY merged.step
LIMIT $3::bigint + 1;
