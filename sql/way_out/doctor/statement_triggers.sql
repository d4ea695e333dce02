-- The triggers of a table that fire once for each INSERT statement, even if it makes no row: name.
-- $1 table text
SELECT tgname::text AS name
FROM pg_trigger
WHERE tgrelid = to_regclass($1::text)::oid
  AND NOT tgisinternal
  AND tgenabled IN ('O', 'A')
  -- Of the bits in pg_trigger.h, 1 is FOR EACH ROW and 4 is INSERT.
  AND tgtype::integer & 5 = 4
ORDER BY tgname;
