-- The foreign keys to a table, held against those that there are files for: referring ("table.column", as it is in this search_path; NULL where a reference has no foreign key), reference ($2's own words; NULL where a foreign key has no files).
-- $1 table text
-- $2 references text[], the folders' names
-- $3 tables text[], their tables
-- $4 columns text[], their columns
-- By the table and the column themselves: how a table is written depends on the search_path.
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
