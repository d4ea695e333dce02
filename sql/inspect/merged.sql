-- Merged rows: what merge removed, the last first, of all resources, of one, or of one id
-- group Duplicates and the constraint
-- $1 resource text
-- $2 id text
SELECT merged_at, resource, id, kept, content, pointed, filled
FROM merged
WHERE ($1::text IS NULL OR resource = $1::text)
  AND ($2::text IS NULL OR id = $2::text)
ORDER BY step DESC;
