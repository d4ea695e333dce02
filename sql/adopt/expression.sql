-- The first column of an index and its condition, as PostgreSQL writes them: expression, condition.
-- $1 index text
SELECT
    pg_catalog.pg_get_indexdef(indexrelid, 1, TRUE) AS expression,
    pg_catalog.pg_get_expr(indpred, indrelid, TRUE) AS condition
FROM pg_catalog.pg_index
WHERE indexrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid;
