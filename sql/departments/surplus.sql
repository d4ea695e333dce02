-- The rows of departments that share a key with one of these rows and do not have the lowest id of that key: id, kept (the lowest id).
-- $1 ids bigint[]
-- The rows are found by the hash, as in select.sql, so that the predicate locks are one page for each key.
WITH these_keys AS MATERIALIZED (
    SELECT DISTINCT name
    FROM departments
    WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
),
same_key AS MATERIALIZED (
    SELECT departments.id, these_keys.name
    FROM these_keys
    INNER JOIN departments
        ON hash_record_extended(ROW(departments.name::text), 0::bigint)
           = hash_record_extended(ROW(these_keys.name::text), 0::bigint)
       AND departments.name::text IS NOT DISTINCT FROM these_keys.name::text
),
ranked AS (
    SELECT id, pg_catalog.first_value(id) OVER (PARTITION BY name ORDER BY id) AS kept
    FROM same_key
)
SELECT id, kept
FROM ranked
WHERE id OPERATOR(pg_catalog.<>) kept
ORDER BY id;
