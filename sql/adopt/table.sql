-- A table by its name as it stands in SQL: oid, kind (as in pg_class), schema, table_name (both quoted where SQL quotes them), bare (not quoted), visible (whether it is found without its schema), type_visible (whether its row type is, too), version (of the server, as 180006). No row if there is no such table.
-- $1 name text
-- The search_path is the caller's own here, so all names of PostgreSQL have their schema.
SELECT
    pg_class.oid::bigint AS oid,
    relkind::pg_catalog.text AS kind,
    pg_catalog.quote_ident(nspname::pg_catalog.text) AS schema,
    pg_catalog.quote_ident(relname::pg_catalog.text) AS table_name,
    relname::pg_catalog.text AS bare,
    pg_catalog.pg_table_is_visible(pg_class.oid) AS visible,
    pg_catalog.pg_type_is_visible(reltype) AS type_visible,
    pg_catalog.current_setting('server_version_num')::integer AS version
FROM pg_catalog.pg_class
INNER JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
WHERE pg_class.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid;
