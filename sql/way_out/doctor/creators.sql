-- The roles that may create in the schemas of the search_path, or in public, and own neither the schema nor one of the tables: schema, roles.
-- $1 tables text[], those that the service uses
SELECT
    nspname::text AS schema,
    pg_catalog.array_agg(coalesce(rolname::text, 'everyone') ORDER BY rolname NULLS FIRST) AS roles
FROM pg_namespace
CROSS JOIN LATERAL aclexplode(coalesce(nspacl, acldefault('n'::"char", nspowner))) AS acl
LEFT JOIN pg_roles ON pg_roles.oid = grantee
WHERE (nspname = 'public' OR nspname = ANY (current_schemas(FALSE)))
  AND privilege_type = 'CREATE'
  AND grantee <> nspowner
  AND NOT coalesce(rolsuper, FALSE)
  AND grantee NOT IN (
      SELECT relowner
      FROM pg_catalog.unnest($1::text[]) AS names (name)
      INNER JOIN pg_class ON pg_class.oid = to_regclass(name)::oid
  )
GROUP BY nspname
ORDER BY nspname;
