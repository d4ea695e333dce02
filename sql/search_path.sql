-- The schemas of this session's search_path that have the tables, all of its schemas while none has, and temporary tables last: search_path. NULL if it leads nowhere.
-- $1 tables text[]
-- $2 extensions text[], whose schemas stay on it, too
-- pg_catalog is searched first, as it is wherever it is not named; what is created goes elsewhere.
WITH wanted AS (
    SELECT relnamespace AS schema
    FROM pg_catalog.unnest($1::text[]) AS names (name)
    INNER JOIN pg_class ON pg_class.oid = to_regclass(quote_ident(name))::oid
),
path AS (
    SELECT name::text, place, pg_namespace.oid AS schema
    FROM pg_catalog.unnest(current_schemas(FALSE)) WITH ORDINALITY AS schemas (name, place)
    INNER JOIN pg_namespace ON nspname = name
)
SELECT string_agg(quote_ident(name), ', ' ORDER BY place) || ', pg_temp' AS search_path
FROM path
WHERE schema IN (SELECT schema FROM wanted)
   OR schema IN (SELECT extnamespace FROM pg_extension WHERE extname = ANY ($2::text[]))
   OR NOT EXISTS (SELECT FROM wanted);
