-- The triggers of a table that fire once for each INSERT, whether it makes a row or not: name.
-- $1 table text
SELECT tgname::text AS name
FROM pg_trigger
WHERE tgrelid = to_regclass($1::text)::oid
  AND NOT tgisinternal
  AND tgenabled IN ('O', 'A')
  -- The bits of pg_trigger.h: 1 is FOR EACH ROW, 4 is INSERT.
  AND tgtype::integer & 5 = 4
ORDER BY tgname;
