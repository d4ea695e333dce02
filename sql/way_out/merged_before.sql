-- A row that must come back before this one, because it is the row that was kept, or gave that row a column that this one gave before: id. No row if there is none.
-- $1 resource text
-- $2 id text
-- OFFSET 0 keeps each a lookup: as a join, PostgreSQL would read all rows of a resource that it takes for few.
WITH this AS (
    SELECT merged.step, merged.kept, merged.filled OPERATOR(pg_catalog.->) 'before'::text AS gave
    FROM merged
    WHERE merged.resource = $1::text
      AND merged.id = $2::text
      AND (merged.pointed OPERATOR(pg_catalog.<>) '{}'::jsonb OR merged.filled IS NOT NULL)
)
SELECT later.id
FROM this
CROSS JOIN LATERAL (
    (
        SELECT merged.id, merged.step
        FROM merged
        WHERE merged.resource = $1::text
          AND merged.id = this.kept
        OFFSET 0
    )
    UNION ALL
    (
        SELECT merged.id, merged.step
        FROM merged
        WHERE merged.resource = $1::text
          AND merged.kept = this.kept
          AND merged.step > this.step
          AND this.gave IS NOT NULL
          AND EXISTS (
              SELECT
              FROM jsonb_object_keys(merged.filled OPERATOR(pg_catalog.->) 'before'::text) AS names (name)
              WHERE this.gave OPERATOR(pg_catalog.?) name
          )
        OFFSET 0
    )
) AS later
WHERE later.step > this.step
ORDER BY later.step DESC
LIMIT 1;
