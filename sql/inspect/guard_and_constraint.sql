-- Guard and constraint: whether each table has them, and the index of its lookup
-- group Duplicates and the constraint
-- headline guard: {guard}
-- They are known by their names, which are the resource's name with _guard_insert and _guard_update,
-- _key, or _lookup behind it.
WITH named AS (
    SELECT indrelid AS table_id, regexp_replace(relname::text, '_lookup$', '') AS resource
    FROM pg_index
    INNER JOIN pg_class ON pg_class.oid = indexrelid
    INNER JOIN pg_am ON pg_am.oid = relam
    WHERE relname LIKE '%\_lookup'
      AND amname = 'hash'
      AND indexprs IS NOT NULL
    UNION
    SELECT tgrelid, regexp_replace(tgname::text, '_guard_(insert|update)$', '')
    FROM pg_trigger
    WHERE tgname::text ~ '_guard_(insert|update)$'
      AND NOT tgisinternal
)
SELECT
    resource,
    table_id::regclass::text AS table_name,
    CASE (
        SELECT count(*) FILTER (WHERE tgenabled = 'A') * 10 + count(*)
        FROM pg_trigger
        WHERE tgrelid = table_id
          AND tgname IN (resource || '_guard_insert', resource || '_guard_update')
    )
        WHEN 22 THEN 'on'
        WHEN 0 THEN 'off'
        ELSE 'incomplete'
    END AS guard,
    (
        SELECT pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE conrelid = table_id
          AND conname = resource || '_key'
    ) AS unique_constraint,
    (
        SELECT CASE WHEN indisvalid THEN 'valid' ELSE 'INVALID' END
        FROM pg_index
        INNER JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = table_id
          AND relname = resource || '_key'
    ) AS its_index,
    (
        SELECT CASE WHEN indisvalid THEN 'valid' ELSE 'INVALID' END
        FROM pg_index
        INNER JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = table_id
          AND relname = resource || '_lookup'
    ) AS lookup_index
FROM named
ORDER BY resource;
