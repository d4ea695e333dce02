-- The new row of employees: id bigint, department_id bigint, name text, created_at timestamp with time zone. No row if the key has one.
-- $1 department_id bigint
-- $2 name text
-- Engines that keep the locks of what a transaction has read need no limit to its age.
-- The end fails, and so the transaction, with what it says as an invalid boolean: after BEFORE triggers and
-- the columns' types have had their way, the row must be there with the key that was sent.
WITH missing AS MATERIALIZED (
    SELECT $1::bigint AS department_id, $2::text AS name
    WHERE NOT EXISTS (
        SELECT
        FROM employees
        WHERE department_id OPERATOR(pg_catalog.=) $1::bigint
          AND name OPERATOR(pg_catalog.=) $2::text
    )
),
inserted AS (
    INSERT INTO employees (department_id, name)
    SELECT department_id, name
    FROM missing
    RETURNING tableoid, id, department_id, name, created_at
)
SELECT inserted.id, inserted.department_id, inserted.name, inserted.created_at
FROM missing
LEFT JOIN inserted ON TRUE
WHERE CASE
    WHEN inserted.tableoid IS NULL THEN 'the table kept no row'
    WHEN inserted.department_id::bigint IS DISTINCT FROM $1::bigint THEN 'the table stored another department_id'
    WHEN inserted.name::text IS DISTINCT FROM $2::text THEN 'the table stored another name'
    ELSE 'true'
END::boolean;
