-- The rows of employees that share a key with one of these rows and do not have the lowest id of that key: id, kept (the lowest id).
-- $1 ids bigint[]
-- The rows are found by the hash, as in select.sql, so that the predicate locks are one page for each key.
WITH these_keys AS MATERIALIZED (
    SELECT DISTINCT department_id, name
    FROM employees
    WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
),
same_key AS MATERIALIZED (
    SELECT employees.id, these_keys.department_id, these_keys.name
    FROM these_keys
    INNER JOIN employees
        ON hash_record_extended(ROW(employees.department_id::bigint, employees.name::text), 0::bigint)
           = hash_record_extended(ROW(these_keys.department_id::bigint, these_keys.name::text), 0::bigint)
       AND employees.department_id::bigint IS NOT DISTINCT FROM these_keys.department_id::bigint
       AND employees.name::text IS NOT DISTINCT FROM these_keys.name::text
),
ranked AS (
    SELECT id, pg_catalog.first_value(id) OVER (PARTITION BY department_id, name ORDER BY id) AS kept
    FROM same_key
)
SELECT id, kept
FROM ranked
WHERE id OPERATOR(pg_catalog.<>) kept
ORDER BY id;
