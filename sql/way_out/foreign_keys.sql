-- The foreign keys that refer to a table, and the references that have files: referring ("table.column" as written in this search_path; NULL if the reference has no foreign key), reference (as in $2; NULL if the foreign key has no files).
-- $1 table text
-- $2 references text[], the folders' names
-- $3 tables text[], the table of each
-- $4 columns text[], the column of each
-- They are compared by the oid of the table and the number of the column, because the search_path
-- decides how a table is written.
WITH there AS (
    SELECT
        conrelid,
        conkey,
        conrelid::regclass::text || '.' || string_agg(quote_ident(attname::text), ', ' ORDER BY attnum) AS referring
    FROM pg_constraint
    INNER JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
    WHERE contype = 'f'
      AND confrelid = to_regclass($1::text)::oid
      AND conparentid = 0::oid
    GROUP BY pg_constraint.oid, conrelid, conkey
),
known AS (
    SELECT reference, attrelid, ARRAY[attnum] AS attnums
    FROM unnest($2::text[], $3::text[], $4::text[]) AS folders (reference, table_name, column_name)
    LEFT JOIN pg_attribute ON attrelid = to_regclass(table_name)::oid AND attname::text = column_name
)
SELECT referring, reference
FROM there
FULL JOIN known ON attrelid = conrelid AND attnums OPERATOR(pg_catalog.=) conkey
ORDER BY referring, reference;
