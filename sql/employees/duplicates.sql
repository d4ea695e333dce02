-- The keys that several rows of employees share, those with the most rows first: resource, id (of the row that stays), key, copies (how many rows), first_created_at, last_created_at, referring (how many rows of other tables refer to them), total (how many such keys), surplus (how many rows beyond one for each key).
SELECT
    'employees' AS resource,
    (pg_catalog.array_agg(id ORDER BY id))[1] AS id,
    pg_catalog.jsonb_build_object('department_id', department_id, 'name', name) AS key,
    count(*) AS copies,
    pg_catalog.min(created_at) AS first_created_at,
    pg_catalog.max(created_at) AS last_created_at,
    0::bigint AS referring,
    count(*) OVER () AS total,
    sum(count(*) - 1) OVER ()::bigint AS surplus
FROM employees
WHERE department_id IS NOT NULL
  AND name IS NOT NULL
GROUP BY department_id, name
HAVING count(*) > 1
ORDER BY count(*) DESC, id;
