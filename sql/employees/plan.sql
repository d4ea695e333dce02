-- What merge would do to employees, their departments merged before: keys, removed, referring (nothing does).
WITH department AS (
    SELECT id, pg_catalog.min(id) OVER (PARTITION BY name, CASE WHEN name IS NULL THEN id END) AS kept
    FROM departments
),
ranked AS (
    SELECT
        employees.id,
        pg_catalog.min(employees.id) OVER (PARTITION BY department.kept, employees.name) AS kept
    FROM employees
    INNER JOIN department ON department.id OPERATOR(pg_catalog.=) employees.department_id
    WHERE employees.name IS NOT NULL
)
SELECT pg_catalog.count(DISTINCT kept) AS keys, count(*) AS removed, 0::bigint AS referring
FROM ranked
WHERE id OPERATOR(pg_catalog.<>) kept;
