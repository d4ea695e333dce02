-- What merge would do to departments: keys, removed, referring (employees of those removed).
WITH ranked AS (
    SELECT id, min(id) OVER (PARTITION BY name) AS kept
    FROM departments
    WHERE name IS NOT NULL
),
surplus AS (
    SELECT id, kept
    FROM ranked
    WHERE id <> kept
)
SELECT
    pg_catalog.count(DISTINCT kept) AS keys,
    count(*) AS removed,
    (SELECT count(*) FROM employees INNER JOIN surplus ON surplus.id = department_id) AS referring
FROM surplus;
