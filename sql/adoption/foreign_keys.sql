-- The foreign keys to a table: referring ("table.column", as a reference's folder is called).
-- $1 table text
SELECT
    conrelid::regclass::text || '.' || string_agg(quote_ident(attname::text), ', ' ORDER BY attnum) AS referring
FROM pg_constraint
INNER JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
WHERE contype = 'f'
  AND confrelid = to_regclass($1::text)::oid
  AND conparentid = 0::oid
GROUP BY pg_constraint.oid
ORDER BY referring;
