-- A type by its oid: oid, bare (its name without length or digits), type_name (its name without the schema), category (as in pg_type).
-- $1 type oid
SELECT
    oid::bigint AS oid,
    pg_catalog.format_type(oid, NULL) AS bare,
    typname::pg_catalog.text AS type_name,
    typtype::pg_catalog.text AS category
FROM pg_catalog.pg_type
WHERE oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid;
