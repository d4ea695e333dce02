-- The new rows of employees for the keys that have none: id bigint, department_id bigint, name text, created_at timestamp with time zone, copies bigint. One row for each item whose key has none, in their order; where copies is not 1, an item before it has made the row.
-- $1 department_id bigint[]
-- $2 name text[]
-- $3 alone boolean
-- The end checks each row as in insert.sql. alone tells that lock.sql has kept all other writers out since
-- before the snapshot, so that no conflict can be forgotten, however old the transaction is. OFFSET 0 keeps
-- NOT EXISTS from becoming a join, for which another index of the key might be read as a whole.
WITH these_rows AS MATERIALIZED (
    SELECT department_id, name, item
    FROM unnest($1::bigint[], $2::text[])
        WITH ORDINALITY AS these_rows (department_id, name, item)
),
missing AS MATERIALIZED (
    SELECT department_id, name, item, row_number() OVER (PARTITION BY these_rows.department_id, these_rows.name ORDER BY item) AS nth
    FROM these_rows
    WHERE NOT EXISTS (
        SELECT
        FROM employees
        WHERE hash_record_extended(ROW(employees.department_id::bigint, employees.name::text), 0::bigint)
              = hash_record_extended(ROW(these_rows.department_id, these_rows.name), 0::bigint)
          AND employees.department_id::bigint IS NOT DISTINCT FROM these_rows.department_id
          AND employees.name::text IS NOT DISTINCT FROM these_rows.name
        OFFSET 0
    )
),
inserted AS (
    INSERT INTO employees (department_id, name)
    SELECT department_id, name
    FROM missing
    WHERE nth = 1
    -- Two transactions with the same new keys wait for each other in one order.
    ORDER BY missing.department_id, missing.name
    RETURNING tableoid, id, department_id, name, created_at
)
SELECT inserted.id, inserted.department_id, inserted.name, inserted.created_at, missing.nth AS copies
FROM missing
LEFT JOIN inserted
    ON hash_record_extended(ROW(inserted.department_id::bigint, inserted.name::text), 0::bigint)
       = hash_record_extended(ROW(missing.department_id, missing.name), 0::bigint)
   AND inserted.department_id::bigint IS NOT DISTINCT FROM missing.department_id
   AND inserted.name::text IS NOT DISTINCT FROM missing.name
WHERE CASE
    WHEN inserted.tableoid IS NULL THEN 'the table stored no such row for item ' || missing.item::text
    WHEN NOT $3::boolean AND clock_timestamp() > transaction_timestamp() + interval '50 milliseconds' THEN 'the insert came too late'
    ELSE 'true'
END::boolean
ORDER BY missing.item;
