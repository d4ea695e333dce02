-- The rows of employees that stay and that differ from a row that would go: id, names (of the columns, other than id).
-- $1 ids bigint[], the rows that would go
-- $2 kept bigint[], for each of them the row that stays
-- $3 but text[], columns that may differ
-- Values are compared as JSON writes them: 1.0 and 1.00 differ. NULL and the JSON null do not, and merge leaves
-- a key alone where a row that has the latter would go.
WITH these_pairs AS (
    SELECT id, kept
    FROM unnest($1::bigint[], $2::bigint[]) AS these_pairs (id, kept)
),
contents AS (
    SELECT employees.id, pg_catalog.to_jsonb(employees.*) AS content
    FROM employees
    WHERE id OPERATOR(pg_catalog.=) ANY ($1::bigint[])
       OR id OPERATOR(pg_catalog.=) ANY ($2::bigint[])
)
SELECT these_pairs.kept AS id, pg_catalog.array_agg(DISTINCT have.key ORDER BY have.key) AS names
FROM these_pairs
INNER JOIN contents AS going ON going.id OPERATOR(pg_catalog.=) these_pairs.id
INNER JOIN contents AS staying ON staying.id OPERATOR(pg_catalog.=) these_pairs.kept
CROSS JOIN pg_catalog.jsonb_each(going.content) AS have
WHERE have.value::text OPERATOR(pg_catalog.<>) (staying.content OPERATOR(pg_catalog.->) have.key)::text
  AND have.key OPERATOR(pg_catalog.<>) ALL (ARRAY['id'] OPERATOR(pg_catalog.||) $3::text[])
GROUP BY these_pairs.kept
ORDER BY these_pairs.kept;
