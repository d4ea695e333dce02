-- A type by its name: oid, NULL if there is none.
-- $1 name text
SELECT pg_catalog.to_regtype($1::pg_catalog.text)::pg_catalog.oid::bigint AS oid;
