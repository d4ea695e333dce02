-- What merge would do to departments: keys (how many would keep one row), removed (how many rows), referring (how many rows refer to those).
WITH ranked AS (
    SELECT
        departments.id,
        pg_catalog.first_value(departments.id) OVER (PARTITION BY departments.name ORDER BY departments.id) AS kept
    FROM departments
    WHERE departments.name IS NOT NULL
),
surplus AS (
    SELECT id, kept
    FROM ranked
    WHERE id OPERATOR(pg_catalog.<>) kept
)
SELECT
    pg_catalog.count(DISTINCT kept) AS keys,
    count(*) AS removed,
    (
        SELECT count(*)
        FROM employees
        INNER JOIN surplus ON surplus.id OPERATOR(pg_catalog.=) employees.department_id
    ) AS referring
FROM surplus;
