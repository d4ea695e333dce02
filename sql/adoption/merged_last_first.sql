-- What merge removed, the last step first: resource, id, total (how many there are).
SELECT resource, id, count(*) OVER () AS total
FROM merged
ORDER BY step DESC;
