-- The departments that share a key with one of these and are not the lowest of their key: id, kept.
-- $1 ids bigint[]
-- Found by the hash, as in select.sql, so that the predicate locks are a page for each key.
WITH keys AS MATERIALIZED (
    SELECT DISTINCT name
    FROM departments
    WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
),
same_key AS MATERIALIZED (
    SELECT departments.id, departments.name
    FROM keys
    INNER JOIN departments
        ON hashtextextended(departments.name::text, 0::bigint)
           = hashtextextended(keys.name::text, 0::bigint)
       AND departments.name::text IS NOT DISTINCT FROM keys.name::text
),
ranked AS (
    SELECT id, pg_catalog.min(id) OVER (PARTITION BY name) AS kept
    FROM same_key
)
SELECT id, kept
FROM ranked
WHERE id OPERATOR(pg_catalog.<>) kept
ORDER BY id;
