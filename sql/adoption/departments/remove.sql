-- Moves departments into merged: id, of each.
-- $1 ids bigint[]
-- $2 kept bigint[], for each of them the one that stays
-- $3 pointed jsonb, by id, what pointed at it: {"7": {"table.column": [1, 2]}}
WITH pairs AS (
    SELECT id, kept
    FROM unnest($1::bigint[], $2::bigint[]) AS pairs (id, kept)
),
removed AS (
    DELETE FROM departments
    USING pairs
    WHERE departments.id = pairs.id
    RETURNING departments.id, pairs.kept, to_jsonb(departments) AS content
)
INSERT INTO merged (resource, id, kept, content, pointed)
SELECT 'departments', id, kept, content, coalesce($3::jsonb -> id::text, '{}')
FROM removed
RETURNING id;
