-- Moves what refers to rows of departments that go to those that stay: id (of the one that goes), moved (which rows of employees).
-- $1 ids bigint[], rows that go
-- $2 kept bigint[], for each of them the one that stays
WITH these_pairs AS (
    SELECT id, kept
    FROM unnest($1::bigint[], $2::bigint[]) AS these_pairs (id, kept)
),
moved AS (
    UPDATE employees
    SET department_id = these_pairs.kept
    FROM these_pairs
    WHERE employees.department_id OPERATOR(pg_catalog.=) these_pairs.id
    RETURNING employees.id, these_pairs.id AS was
)
SELECT was AS id, pg_catalog.array_agg(id::text ORDER BY id) AS moved
FROM moved
GROUP BY was;
