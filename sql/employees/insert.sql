-- The new row of employees: id bigint, department_id bigint, name text, created_at timestamp with time zone. No row if the key has one, or if the transaction is too old to insert.
-- $1 department_id bigint
-- $2 name text
-- An insert must come within 50 ms of its transaction's begin. PostgreSQL sees a conflict with a committed
-- serializable transaction only while it remembers that one, by default for the next 1,360 transactions.
-- For 50 ms that covers 27,000 transactions a second.
-- BEFORE triggers and the columns' types may change the row. The end checks that it is there, in time, with
-- the key that was sent and with the same hash, which a column's own collation may change. If not, the cast
-- to boolean fails, and with it the transaction: the error quotes the words, by which the service knows why.
WITH missing AS MATERIALIZED (
    SELECT $1::bigint AS department_id, $2::text AS name
    WHERE NOT EXISTS (
        SELECT
        FROM employees
        WHERE hash_record_extended(ROW(department_id::bigint, name::text), 0::bigint)
              = hash_record_extended(ROW($1::bigint, $2::text), 0::bigint)
          AND department_id::bigint IS NOT DISTINCT FROM $1::bigint
          AND name::text IS NOT DISTINCT FROM $2::text
    )
      AND clock_timestamp() < transaction_timestamp() + interval '50 milliseconds'
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
    WHEN hash_record_extended(ROW(inserted.name::text), 0::bigint)
         <> hash_record_extended(ROW($2::text), 0::bigint) THEN 'the table would not find this name'
    WHEN clock_timestamp() > transaction_timestamp() + interval '50 milliseconds' THEN 'the insert came too late'
    ELSE 'true'
END::boolean;
