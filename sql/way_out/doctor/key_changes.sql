-- The foreign keys of a table that change the key of its rows when a row that they refer to is deleted or changed: name (of the column), referred (the other table), on_delete, on_update (such as "SET NULL", or NULL if it changes no key).
-- $1 table text
-- $2 key_columns text[]
-- $3 index text, the lookup's, which also depends on the columns inside the key's expressions and its condition
WITH actions AS (
    SELECT
        attname::text AS name,
        confrelid::regclass::text AS referred,
        CASE
            -- Since PostgreSQL 15 it may name the columns that it sets, and this one may not be among them.
            WHEN NOT coalesce(
                (pg_catalog.to_jsonb(pg_constraint) ->> 'confdelsetcols'::text)::jsonb
                OPERATOR(pg_catalog.@>) pg_catalog.to_jsonb(attnum),
                TRUE
            ) THEN NULL
            WHEN confdeltype = 'n' AND NOT attnotnull THEN 'SET NULL'
            WHEN confdeltype = 'd' THEN 'SET DEFAULT'
        END AS on_delete,
        CASE
            WHEN confupdtype = 'n' AND NOT attnotnull THEN 'SET NULL'
            WHEN confupdtype = 'd' THEN 'SET DEFAULT'
            WHEN confupdtype = 'c' THEN 'CASCADE'
        END AS on_update
    FROM pg_constraint
    INNER JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
    WHERE contype = 'f'
      AND conparentid = 0::oid
      AND conrelid = to_regclass($1::text)::oid
      AND (
          attname::text = ANY ($2::text[])
          OR EXISTS (
              SELECT
              FROM pg_index
              INNER JOIN pg_class AS indexes ON indexes.oid = indexrelid
              INNER JOIN pg_depend
                  ON classid = 'pg_class'::regclass::oid
                 AND objid = indexrelid
                 AND refclassid = 'pg_class'::regclass::oid
                 AND refobjid = indrelid
                 AND refobjsubid = attnum
              WHERE indrelid = conrelid
                AND indexes.relname::text = $3::text
          )
      )
)
SELECT name, referred, on_delete, on_update
FROM actions
WHERE on_delete IS NOT NULL
   OR on_update IS NOT NULL
ORDER BY name, referred;
