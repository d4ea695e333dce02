-- The rows of employees that will share a key with a lower id once these rows of departments are merged: id, kept (the lowest id of the key).
-- $1 ids bigint[], the rows that go
-- $2 kept bigint[], for each of them the row that stays
-- Rows that have the key already are found by its hash, as in select.sql, so that the lookup's index serves it.
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
