-- The rows of departments with these keys, the lowest id where several share one, and how many do: id bigint, name text, created_at timestamp with time zone, copies bigint. One row for each key, in their order; copies is 0, and the rest is NULL, if a key has none.
-- $1 name text[]
-- Each key is looked for by departments_lookup, as in select.sql.
WITH these_keys AS MATERIALIZED (
    SELECT name, item
    FROM pg_catalog.unnest($1::text[])
        WITH ORDINALITY AS these_keys (name, item)
),
same_key AS MATERIALIZED (
    SELECT these_keys.item, count(*) OVER (PARTITION BY these_keys.item) AS copies, departments.id, departments.name, departments.created_at
    FROM these_keys
    INNER JOIN departments
        ON hash_record_extended(ROW(departments.name::text), 0::bigint)
           = hash_record_extended(ROW(these_keys.name), 0::bigint)
       AND departments.name::text IS NOT DISTINCT FROM these_keys.name
),
first_row AS (
    SELECT DISTINCT ON (item) item, copies, id, name, created_at
    FROM same_key
    ORDER BY item, id
)
SELECT first_row.id, first_row.name, first_row.created_at, coalesce(first_row.copies, 0) AS copies
FROM these_keys
LEFT JOIN first_row ON first_row.item = these_keys.item
ORDER BY these_keys.item;
