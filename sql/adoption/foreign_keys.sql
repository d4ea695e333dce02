-- The foreign keys to a table, but for the known ones: name, referring ("table.column").
-- $1 resource text
-- $2 known text[]
WITH foreign_keys AS (
    SELECT
        conname AS name,
        conrelid::regclass::text || '.' || string_agg(attname, ', ' ORDER BY attnum) AS referring
    FROM pg_constraint
    INNER JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
    WHERE contype = 'f'
      AND confrelid = to_regclass($1)
      AND conparentid = 0
    GROUP BY conname, conrelid
)
SELECT name, referring
FROM foreign_keys
WHERE referring <> ALL ($2::text[])
ORDER BY referring, name;
