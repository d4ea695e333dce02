-- How many rows merge has removed: resource, removed.
SELECT resource, count(*) AS removed
FROM merged
GROUP BY resource
ORDER BY resource;
