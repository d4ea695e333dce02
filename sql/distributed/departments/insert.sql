-- The new row of departments: id bigint, name text, created_at timestamp with time zone. No row if the key has one.
-- $1 name text
-- The insert has no time limit, because these engines keep the locks of all that a transaction has read.
-- BEFORE triggers and the columns' types may change the row. The end checks that it is there with the key
-- that was sent. If not, the cast to boolean fails, and with it the transaction: the error quotes the words.
WITH missing AS MATERIALIZED (
    SELECT $1::text AS name
    WHERE NOT EXISTS (
        SELECT
        FROM departments
        WHERE name OPERATOR(pg_catalog.=) $1::text
    )
),
inserted AS (
    INSERT INTO departments (name)
    SELECT name
    FROM missing
    RETURNING tableoid, id, name, created_at
)
SELECT inserted.id, inserted.name, inserted.created_at
FROM missing
LEFT JOIN inserted ON TRUE
WHERE CASE
    WHEN inserted.tableoid IS NULL THEN 'the table kept no row'
    WHEN inserted.name::text IS DISTINCT FROM $1::text THEN 'the table stored another name'
    ELSE 'true'
END::boolean;
