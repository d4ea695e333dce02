-- Keys that several rows share, the worst first
SELECT
    'departments' AS resource,
    pg_catalog.min(id) AS lowest_id,
    pg_catalog.jsonb_build_object('name', name) AS key,
    count(*) AS copies,
    pg_catalog.min(created_at) AS first_created_at,
    pg_catalog.max(created_at) AS last_created_at
FROM departments
WHERE name IS NOT NULL
GROUP BY name
HAVING count(*) > 1
UNION ALL
SELECT
    'employees',
    pg_catalog.min(id),
    pg_catalog.jsonb_build_object('department_id', department_id, 'name', name),
    count(*),
    pg_catalog.min(created_at),
    pg_catalog.max(created_at)
FROM employees
WHERE department_id IS NOT NULL
  AND name IS NOT NULL
GROUP BY department_id, name
HAVING count(*) > 1
ORDER BY copies DESC, resource, lowest_id;
