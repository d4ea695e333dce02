-- Points rows of employees at the rows of departments that stay, instead of those that go: id (of a row that goes), moved (the rows that referred to it).
-- $1 ids bigint[], the rows that go
-- $2 kept bigint[], for each of them the row that stays
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
