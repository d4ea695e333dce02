-- The id of the row that merge kept in the place of this one, or in the place of that one since: kept. No row if this one was not merged.
-- $1 resource text
-- $2 id text
-- OFFSET 0 keeps it one lookup for each row: as a join, PostgreSQL would read all rows of a resource that it takes for few.
WITH RECURSIVE chain AS (
    SELECT kept
    FROM merged
    WHERE resource = $1::text
      AND id = $2::text
    UNION
    SELECT later.kept
    FROM chain
    CROSS JOIN LATERAL (
        SELECT merged.kept
        FROM merged
        WHERE merged.resource = $1::text
          AND merged.id = chain.kept
        OFFSET 0
    ) AS later
)
SELECT kept
FROM chain
WHERE NOT EXISTS (
    SELECT
    FROM merged
    WHERE merged.resource = $1::text
      AND merged.id = chain.kept
    OFFSET 0
)
LIMIT 1;
