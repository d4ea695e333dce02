-- What merge would do to employees once the rows that they refer to are merged: keys (how many would keep one row), removed (how many rows), referring (how many rows refer to those).
WITH departments_kept AS (
    SELECT id, pg_catalog.first_value(id) OVER (PARTITION BY name, CASE WHEN (name IS NOT NULL) IS NOT TRUE THEN id END ORDER BY departments.id) AS kept
    FROM departments
),
ranked AS (
    SELECT
        employees.id,
        pg_catalog.first_value(employees.id) OVER (PARTITION BY departments_kept.kept, employees.name ORDER BY employees.id) AS kept
    FROM employees
    INNER JOIN departments_kept ON departments_kept.id OPERATOR(pg_catalog.=) employees.department_id
    WHERE employees.department_id IS NOT NULL
      AND employees.name IS NOT NULL
),
surplus AS (
    SELECT id, kept
    FROM ranked
    WHERE id OPERATOR(pg_catalog.<>) kept
)
SELECT
    pg_catalog.count(DISTINCT kept) AS keys,
    count(*) AS removed,
    0::bigint AS referring
FROM surplus;
