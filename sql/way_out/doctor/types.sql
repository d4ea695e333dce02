-- The types whose name is not the one in $2, in order: number (from 1), type (its name in PostgreSQL).
-- $1 oids bigint[]
-- $2 names text[]
SELECT number, format_type(type_oid::oid, NULL::integer) AS type
FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS types (type_oid, type_name, number)
WHERE to_regtype(type_name)::oid IS DISTINCT FROM type_oid::oid
ORDER BY number;
