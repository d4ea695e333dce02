-- The rows of employees that will share a key when the rows of departments they refer to are one, but for the lowest of each key: id, kept.
-- $1 ids bigint[], rows that go
-- $2 kept bigint[], for each of them the one that stays
-- Those that stay are found by the hash, as in select.sql: no other index serves the condition.
WITH these_pairs AS (
    SELECT id, kept
    FROM unnest($1::bigint[], $2::bigint[]) AS these_pairs (id, kept)
),
moving AS MATERIALIZED (
    SELECT employees.id, these_pairs.kept AS department_id, employees.name
    FROM these_pairs
    INNER JOIN employees ON employees.department_id OPERATOR(pg_catalog.=) these_pairs.id
    WHERE employees.name IS NOT NULL
),
staying AS (
    SELECT employees.id, these_keys.department_id, these_keys.name
    FROM (SELECT DISTINCT department_id, name FROM moving) AS these_keys
    INNER JOIN employees
        ON hash_record_extended(ROW(employees.department_id::bigint, employees.name::text), 0::bigint)
           = hash_record_extended(ROW(these_keys.department_id::bigint, these_keys.name::text), 0::bigint)
       AND employees.department_id::bigint IS NOT DISTINCT FROM these_keys.department_id::bigint
       AND employees.name::text IS NOT DISTINCT FROM these_keys.name::text
),
together AS (
    SELECT id, department_id, name
    FROM moving
    UNION ALL
    SELECT id, department_id, name
    FROM staying
),
ranked AS (
    SELECT id, pg_catalog.first_value(id) OVER (PARTITION BY department_id, name ORDER BY id) AS kept
    FROM together
)
SELECT id, kept
FROM ranked
WHERE id OPERATOR(pg_catalog.<>) kept
ORDER BY id;
