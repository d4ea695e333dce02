-- The names that lead to something of somebody else's: name, why. A name has no row if it leads to something of ours, or to nothing.
-- $1 names text[], of tables, or of a view that has the name of its extension
-- $2 tables text[], whose owners are trusted as the session's role is
-- Whoever owns a table, a view, or the function of a trigger may run code in the session that uses it.
-- So each owner must be one who may act as a trusted role already, as every superuser may.
WITH trusted AS (
    SELECT oid
    FROM pg_roles
    WHERE rolname = current_user
    UNION
    SELECT relowner
    FROM pg_catalog.unnest($2::text[]) AS names (name)
    INNER JOIN pg_class ON pg_class.oid = to_regclass(name)::oid
),
found AS (
    SELECT name, pg_class.oid, relkind, relowner
    FROM pg_catalog.unnest($1::text[]) AS names (name)
    INNER JOIN pg_class ON pg_class.oid = to_regclass(name)::oid
    WHERE NOT EXISTS (
        SELECT
        FROM pg_depend
        INNER JOIN pg_extension ON pg_extension.oid = refobjid
        WHERE classid = 'pg_class'::regclass::oid
          AND objid = pg_class.oid
          AND refclassid = 'pg_extension'::regclass::oid
          AND deptype = 'e'
          AND extname::text = name
    )
),
faults AS (
    SELECT oid, 'is no table' AS why
    FROM found
    WHERE relkind NOT IN ('r', 'p')
    UNION ALL
    SELECT owned.oid, what || owner::regrole::text
    FROM (
        SELECT oid, relowner AS owner, 'belongs to ' AS what
        FROM found
        UNION ALL
        SELECT tgrelid, proowner, 'has the trigger ' || tgname::text || ', whose function belongs to '
        FROM pg_trigger
        INNER JOIN pg_proc ON pg_proc.oid = tgfoid
        WHERE NOT tgisinternal
    ) AS owned
    INNER JOIN found ON found.oid = owned.oid
    WHERE NOT EXISTS (
        SELECT
        FROM trusted
        WHERE pg_has_role(owner, trusted.oid, 'MEMBER'::text)
    )
    UNION ALL
    -- The columns id and kept are not looked for, because any table may have columns of these names.
    SELECT oid, 'has no column ' || pg_catalog.string_agg(wanted, ', ' ORDER BY wanted)
    FROM found
    CROSS JOIN pg_catalog.unnest(ARRAY['step', 'resource', 'content', 'pointed']) AS wanted
    WHERE name = 'merged'
      AND NOT EXISTS (
          SELECT
          FROM pg_attribute
          WHERE attrelid = found.oid
            AND attname::text = wanted
            AND NOT attisdropped
      )
    GROUP BY oid
)
SELECT found.name, pg_catalog.string_agg(why, ' and ' ORDER BY why) AS why
FROM found
INNER JOIN faults USING (oid)
GROUP BY found.name
ORDER BY found.name;
