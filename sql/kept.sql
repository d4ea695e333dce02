-- The id of the row that merge kept in the place of this one, or in the place of that one since: kept. No row if this one was not merged.
-- $1 resource text
-- $2 id text
WITH RECURSIVE chain AS (
    SELECT kept
    FROM merged
    WHERE resource = $1::text
      AND id = $2::text
    UNION
    SELECT merged.kept
    FROM chain
    INNER JOIN merged ON merged.resource = $1::text AND merged.id = chain.kept
)
SELECT kept
FROM chain
WHERE NOT EXISTS (
    SELECT
    FROM merged
    WHERE merged.resource = $1::text
      AND merged.id = chain.kept
)
LIMIT 1;
