-- The keys that several rows of departments share, those with the most rows first: resource, id (of the row that stays), key, copies (how many rows), first_created_at, last_created_at, referring (how many rows of other tables refer to them), total (how many such keys), surplus (how many rows beyond one for each key).
SELECT
    'departments' AS resource,
    (pg_catalog.array_agg(id ORDER BY id))[1] AS id,
    pg_catalog.jsonb_build_object('name', name) AS key,
    count(*) AS copies,
    pg_catalog.min(created_at) AS first_created_at,
    pg_catalog.max(created_at) AS last_created_at,
    (
        SELECT count(*)
        FROM employees AS these_rows
        WHERE these_rows.department_id OPERATOR(pg_catalog.=) ANY (pg_catalog.array_agg(departments.id))
    ) AS referring,
    count(*) OVER () AS total,
    sum(count(*) - 1) OVER ()::bigint AS surplus
FROM departments
WHERE name IS NOT NULL
GROUP BY name
HAVING count(*) > 1
ORDER BY count(*) DESC, id;
