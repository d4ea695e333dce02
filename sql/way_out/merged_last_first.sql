-- The rows that merge removed from these resources, the last one first: resource, id, total (how many there are).
-- $1 resources text[]
SELECT resource, id, count(*) OVER () AS total
FROM merged
WHERE resource = ANY ($1::text[])
ORDER BY step DESC;
