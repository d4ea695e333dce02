-- The rows of employees that share a key with one of these and are not the lowest of their key: id, kept.
-- $1 ids bigint[]
-- Found by the hash, as in select.sql, so that the predicate locks are a page for each key.
WITH keys AS MATERIALIZED (
    SELECT DISTINCT department_id, name
    FROM employees
    WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
),
same_key AS MATERIALIZED (
    SELECT employees.id, keys.department_id, keys.name
    FROM keys
    INNER JOIN employees
        ON hash_record_extended(ROW(employees.department_id::bigint, employees.name::text), 0::bigint)
           = hash_record_extended(ROW(keys.department_id::bigint, keys.name::text), 0::bigint)
       AND employees.department_id::bigint IS NOT DISTINCT FROM keys.department_id::bigint
       AND employees.name::text IS NOT DISTINCT FROM keys.name::text
),
ranked AS (
    SELECT id, pg_catalog.first_value(id) OVER (PARTITION BY department_id, name ORDER BY id) AS kept
    FROM same_key
)
SELECT id, kept
FROM ranked
WHERE id OPERATOR(pg_catalog.<>) kept
ORDER BY id;
