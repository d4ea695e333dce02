-- The resources of a table, and whether a column is in the key of each, or in its condition: resource, has_column (NULL if its lookup's index is missing).
-- $1 table text
-- $2 column text
-- $3 resources text[], all that there are
-- $4 tables text[], the table of each
-- The lookup's index depends on all these columns, also on those inside an expression.
SELECT
    resource,
    (
        SELECT CASE count(*) WHEN 0 THEN NULL ELSE count(*) FILTER (WHERE attname::text = $2::text) > 0 END
        FROM pg_index
        INNER JOIN pg_class AS indexes ON indexes.oid = indexrelid
        INNER JOIN pg_depend
            ON classid = 'pg_class'::regclass::oid
           AND objid = indexrelid
           AND refclassid = 'pg_class'::regclass::oid
           AND refobjid = indrelid
        INNER JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE indrelid = to_regclass($1::text)::oid
          AND indexes.relname::text = resource || '_lookup'
    ) AS has_column
FROM unnest($3::text[], $4::text[]) AS served (resource, table_name)
WHERE to_regclass(table_name)::oid = to_regclass($1::text)::oid
ORDER BY resource;
