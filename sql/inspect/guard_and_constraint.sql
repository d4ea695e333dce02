-- The guard, the constraint and the lookup's index of each resource
SELECT
    resource,
    CASE (
        SELECT count(*) FILTER (WHERE tgenabled = 'A') * 10 + count(*)
        FROM pg_trigger
        WHERE tgrelid = to_regclass(resource)::oid
          AND tgname IN (resource || '_guard_insert', resource || '_guard_update')
    )
        WHEN 22 THEN 'on'
        WHEN 0 THEN 'off'
        ELSE 'incomplete'
    END AS guard,
    (
        SELECT pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE conrelid = to_regclass(resource)::oid
          AND conname = resource || '_key'
    ) AS unique_constraint,
    (
        SELECT CASE WHEN indisvalid THEN 'valid' ELSE 'INVALID' END
        FROM pg_index
        WHERE indexrelid = to_regclass(resource || '_key')::oid
    ) AS its_index,
    (
        SELECT CASE WHEN indisvalid THEN 'valid' ELSE 'INVALID' END
        FROM pg_index
        WHERE indexrelid = to_regclass(resource || '_lookup')::oid
    ) AS lookup_index
FROM (VALUES ('departments'), ('employees')) AS resources (resource)
ORDER BY resource;
