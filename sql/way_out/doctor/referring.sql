-- The columns of a table that refer to another table, or to its own: name.
-- $1 table text
SELECT DISTINCT attname::text AS name
FROM pg_constraint
INNER JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
WHERE contype = 'f'
  AND conrelid = to_regclass($1::text)::oid
ORDER BY name;
