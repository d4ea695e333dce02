-- The new rows of departments for the keys that have none: id bigint, name text, created_at timestamp with time zone, copies bigint. One row for each item whose key has none, in their order; where copies is not 1, an item before it has made the row.
-- $1 name text[]
-- $2 alone boolean
-- The end checks each row as in insert.sql. alone tells that lock.sql has kept all other writers out since
-- before the snapshot, so that no conflict can be forgotten, however old the transaction is. OFFSET 0 keeps
-- NOT EXISTS from becoming a join, for which another index of the key might be read as a whole.
WITH these_rows AS MATERIALIZED (
    SELECT name, item
    FROM pg_catalog.unnest($1::text[])
        WITH ORDINALITY AS these_rows (name, item)
),
missing AS MATERIALIZED (
    SELECT name, item, row_number() OVER (PARTITION BY these_rows.name ORDER BY item) AS nth
    FROM these_rows
    WHERE NOT EXISTS (
        SELECT
        FROM departments
        WHERE hash_record_extended(ROW(departments.name::text), 0::bigint)
              = hash_record_extended(ROW(these_rows.name), 0::bigint)
          AND departments.name::text IS NOT DISTINCT FROM these_rows.name
        OFFSET 0
    )
),
inserted AS (
    INSERT INTO departments (name)
    SELECT name
    FROM missing
    WHERE nth = 1
    -- Two transactions with the same new keys wait for each other in one order.
    ORDER BY missing.name
    RETURNING tableoid, id, name, created_at
)
SELECT inserted.id, inserted.name, inserted.created_at, missing.nth AS copies
FROM missing
LEFT JOIN inserted
    ON hash_record_extended(ROW(inserted.name::text), 0::bigint)
       = hash_record_extended(ROW(missing.name), 0::bigint)
   AND inserted.name::text IS NOT DISTINCT FROM missing.name
WHERE CASE
    WHEN inserted.tableoid IS NULL THEN 'the table stored no such row for item ' || missing.item::text
    WHEN NOT $2::boolean AND clock_timestamp() > transaction_timestamp() + interval '50 milliseconds' THEN 'the insert came too late'
    ELSE 'true'
END::boolean
ORDER BY missing.item;
