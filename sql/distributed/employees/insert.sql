-- The new row of employees: id bigint, department_id bigint, name text, created_at timestamp with time zone. No row if the key has one.
-- $1 department_id bigint
-- $2 name text
-- The insert has no time limit, because these engines keep the locks of all that a transaction has read.
-- BEFORE triggers and the columns' types may change the row. The end checks that it is there with the key
-- that was sent. If not, the cast to boolean fails, and with it the transaction: the error quotes the words.
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
