-- The search_path for this session: of its present schemas those that have the tables, or all if none has, and pg_temp last: search_path. NULL if there are none.
-- $1 tables text[]
-- $2 extensions text[], whose schemas stay on it, too
-- pg_catalog is not named in it, so that PostgreSQL searches it first, and makes no table there.
-- Until this search_path is set, functions, operators, types and tables of others may come before
-- PostgreSQL's own. So all of them have their schema here.
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
   -- A table that the files name with its schema may be in no schema of the path.
   OR NOT EXISTS (
       SELECT
       FROM wanted
       INNER JOIN path AS has ON has.schema OPERATOR(pg_catalog.=) wanted.schema
   );
