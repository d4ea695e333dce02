-- The roles that could put code of theirs in the way of the service, and own none of the tables: privilege, place, roles. CREATE is that in the schemas of the search_path, or in public, and TRIGGER that on the tables.
-- $1 tables text[], those that the service uses
WITH tables AS (
    SELECT pg_class.oid, relowner, relacl
    FROM pg_catalog.unnest($1::text[]) AS names (name)
    INNER JOIN pg_class ON pg_class.oid = to_regclass(name)::oid
),
database AS (
    SELECT datdba, datacl
    FROM pg_database
    WHERE datname = current_database()
),
-- The search_path as the session has got it, because the present one has only schemas that are there.
path AS (
    SELECT DISTINCT CASE named WHEN '$user' THEN current_user::text ELSE named END AS schema
    FROM pg_settings
    CROSS JOIN LATERAL regexp_split_to_table(reset_val, ','::text) AS item
    CROSS JOIN LATERAL btrim(item, ' "'::text) AS named
    WHERE pg_settings.name = 'search_path'
      AND named NOT IN ('', 'pg_temp')
),
places AS (
    SELECT 'CREATE' AS privilege, nspname::text AS place, nspowner AS owner,
        coalesce(nspacl, acldefault('n'::"char", nspowner)) AS rights
    FROM pg_namespace
    WHERE nspname = 'public' OR nspname = ANY (current_schemas(FALSE))
    UNION ALL
    -- Whoever may create schemas can make this one, which then comes before others.
    SELECT 'CREATE', schema || ', which is not there yet', datdba,
        coalesce(datacl, acldefault('d'::"char", datdba))
    FROM path
    CROSS JOIN database
    WHERE to_regnamespace(quote_ident(schema)) IS NULL
    UNION ALL
    SELECT 'TRIGGER', oid::regclass::text, relowner, coalesce(relacl, acldefault('r'::"char", relowner))
    FROM tables
),
granted AS (
    SELECT privilege, place, grantee AS role
    FROM places
    CROSS JOIN LATERAL aclexplode(rights) AS acl
    WHERE privilege_type = privilege
    UNION
    -- An owner can grant himself what he lacks.
    SELECT privilege, place, owner
    FROM places
),
resolved AS (
    SELECT DISTINCT privilege, place, CASE role WHEN 'pg_database_owner'::regrole::oid THEN datdba ELSE role END AS role
    FROM granted
    CROSS JOIN database
)
SELECT privilege, place, pg_catalog.array_agg(coalesce(rolname::text, 'everyone') ORDER BY rolname NULLS FIRST) AS roles
FROM resolved
LEFT JOIN pg_roles ON pg_roles.oid = role
WHERE NOT coalesce(rolsuper OR rolname = current_user, FALSE)
  AND role NOT IN (SELECT relowner FROM tables)
GROUP BY privilege, place
ORDER BY privilege, place;
