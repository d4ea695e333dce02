-- Who may create in the schemas of the search_path, or in public, and owns neither them nor a table in them: schema, roles.
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
  AND NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid AND relowner = grantee)
GROUP BY nspname
ORDER BY nspname;
