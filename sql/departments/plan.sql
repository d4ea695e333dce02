-- What merge would do to departments: keys, removed, referring (employees of those removed).
WITH ranked AS (
    SELECT id, pg_catalog.min(id) OVER (PARTITION BY name) AS kept
    FROM departments
    WHERE name IS NOT NULL
),
surplus AS (
    SELECT id, kept
    FROM ranked
    WHERE id OPERATOR(pg_catalog.<>) kept
)
SELECT
    pg_catalog.count(DISTINCT kept) AS keys,
    count(*) AS removed,
    (SELECT count(*) FROM employees INNER JOIN surplus ON surplus.id OPERATOR(pg_catalog.=) department_id) AS referring
FROM surplus;
