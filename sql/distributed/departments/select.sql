-- The row of departments with this key, the lowest id where several share it, and how many do: id bigint, name text, created_at timestamp with time zone, copies bigint. No row if there is none.
-- $1 name text
-- The condition needs no hash, because these engines lock the keys that were looked at, and no pages.
SELECT id, name, created_at, count(*) OVER () AS copies
FROM departments
WHERE name OPERATOR(pg_catalog.=) $1::text
ORDER BY departments.id
LIMIT 1;
