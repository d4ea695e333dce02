-- The id that merge kept in the place of this one, itself not merged since: kept text. No row if this one was not merged.
-- $1 resource text
-- $2 id text
WITH RECURSIVE chain AS (
    SELECT kept::text
    FROM merged
    WHERE resource = $1::text
      AND id::text = $2::text
    UNION
    SELECT merged.kept::text
    FROM chain
    INNER JOIN merged ON merged.resource = $1::text AND merged.id::text = chain.kept
)
SELECT kept
FROM chain
ORDER BY kept
LIMIT 1;
