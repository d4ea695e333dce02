-- The schemas of this session's search_path that have the tables, all of its schemas while none has, and temporary tables last: search_path. NULL if it leads nowhere.
-- $1 tables text[]
-- $2 extensions text[], whose schemas stay on it, too
-- pg_catalog is searched first, as it is wherever it is not named; what is created goes elsewhere.
-- Until that is so, others' functions, operators, types and tables may come before PostgreSQL's:
-- here all are named with their schema.
WITH wanted AS (
    SELECT relnamespace AS schema
    FROM pg_catalog.unnest($1::pg_catalog.text[]) AS names (name)
    INNER JOIN pg_catalog.pg_class
        ON pg_class.oid OPERATOR(pg_catalog.=)
           pg_catalog.to_regclass(name)::pg_catalog.oid
),
path AS (
    SELECT name::pg_catalog.text, place, pg_namespace.oid AS schema
    FROM pg_catalog.unnest(pg_catalog.current_schemas(FALSE)) WITH ORDINALITY AS schemas (name, place)
    INNER JOIN pg_catalog.pg_namespace ON nspname OPERATOR(pg_catalog.=) name
    WHERE name OPERATOR(pg_catalog.<>) 'pg_catalog'
)
SELECT
    pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ' ORDER BY place)
        OPERATOR(pg_catalog.||) ', pg_temp' AS search_path
FROM path
WHERE schema OPERATOR(pg_catalog.=) ANY (SELECT schema FROM wanted)
   OR schema OPERATOR(pg_catalog.=) ANY (
       SELECT extnamespace
       FROM pg_catalog.pg_extension
       WHERE extname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])
   )
   -- A table whose name in the files has a schema may be in none of the path's.
   OR NOT EXISTS (
       SELECT
       FROM wanted
       INNER JOIN path AS has ON has.schema OPERATOR(pg_catalog.=) wanted.schema
   );
