-- A table, and the rights of the session's role on it: table_name, unlogged, owned (whether the role owns it), row_security (whether policies apply to the role), missing (rights of $2 that the role lacks), surplus (rights of $3 that it has), nullable (columns of $4 that may be NULL). No row if there is no such table.
-- $1 table text
-- $2 needed text[]
-- $3 needless text[]
-- $4 key_columns text[]
SELECT
    pg_class.oid::regclass::text AS table_name,
    relpersistence <> 'p' AS unlogged,
    pg_has_role(relowner, 'MEMBER'::text) AND (relowner = role.oid OR NOT rolsuper) AS owned,
    row_security_active(pg_class.oid) AS row_security,
    ARRAY(
        SELECT wanted
        FROM pg_catalog.unnest($2::text[]) AS wanted
        WHERE NOT has_table_privilege(pg_class.oid, wanted)
    )
    OPERATOR(pg_catalog.||) ARRAY(
        SELECT 'USAGE on ' || seqrelid::regclass::text
        FROM pg_attrdef
        INNER JOIN pg_depend
            ON classid = 'pg_attrdef'::regclass::oid
           AND objid = pg_attrdef.oid
           AND refclassid = 'pg_class'::regclass::oid
        INNER JOIN pg_sequence ON seqrelid = refobjid
        WHERE adrelid = pg_class.oid
          AND 'INSERT' = ANY ($2::text[])
          AND NOT has_sequence_privilege(seqrelid, 'USAGE, UPDATE'::text)
    ) AS missing,
    ARRAY(
        SELECT surplus
        FROM pg_catalog.unnest($3::text[]) AS surplus
        WHERE has_table_privilege(pg_class.oid, surplus)
    ) AS surplus,
    ARRAY(
        SELECT attname::text
        FROM pg_attribute
        WHERE attrelid = pg_class.oid
          AND attname = ANY ($4::text[])
          AND NOT attnotnull
        ORDER BY attnum
    ) AS nullable
FROM pg_class
-- A superuser counts as a member of every role.
INNER JOIN pg_roles AS role ON role.rolname = current_user
WHERE pg_class.oid = to_regclass($1::text)::oid;
