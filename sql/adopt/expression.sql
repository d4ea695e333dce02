-- The first column of an index and its condition, as PostgreSQL writes them: expression, collation (the one of the index, if it is not that of the expression), condition.
-- $1 index text
-- An index keeps the COLLATE at the end of an expression as a collation of its own. For the whole index
-- PostgreSQL writes that collation behind the expression, and for a single column it does not.
SELECT
    expression,
    CASE WHEN pg_catalog.strpos(
        pg_catalog.pg_get_indexdef(indexrelid, 0, TRUE),
        pg_catalog.format(' USING btree (%s COLLATE ', expression)
    ) OPERATOR(pg_catalog.>) 0 THEN (
        SELECT pg_catalog.format('%s.%I', collnamespace::pg_catalog.regnamespace, collname)
        FROM pg_catalog.pg_collation
        WHERE pg_collation.oid OPERATOR(pg_catalog.=) indcollation[0]
    ) END AS collation,
    pg_catalog.pg_get_expr(indpred, indrelid, TRUE) AS condition
FROM pg_catalog.pg_index
CROSS JOIN LATERAL pg_catalog.pg_get_indexdef(indexrelid, 1, TRUE) AS expression
WHERE indexrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid;
