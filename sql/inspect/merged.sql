-- What merge removed, the last first: all of it, or of one resource, or what became of one id
-- $1 resource text
-- $2 id text
SELECT merged_at, resource, id, kept, content, pointed
FROM merged
WHERE ($1::text IS NULL OR resource = $1::text)
  AND ($2::text IS NULL OR id = $2::text)
ORDER BY step DESC;
