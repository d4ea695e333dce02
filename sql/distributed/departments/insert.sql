-- The new row of departments: id bigint, name text, created_at timestamp with time zone. No row if the key has one.
-- $1 name text
-- Engines that keep the locks of what a transaction has read need no limit to its age.
-- The end fails, and so the transaction, with what it says as an invalid boolean: after BEFORE triggers and
-- the columns' types have had their way, the row must be there with the key that was sent.
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
