-- The guard of a table: "on", "off", or "incomplete" where something has disabled or removed a part of it: status.
-- $1 table text
-- $2 resource text, after which the triggers are called
SELECT
    CASE count(*) FILTER (WHERE tgenabled = 'A')
        WHEN 2 THEN 'on'
        ELSE CASE count(*) WHEN 0 THEN 'off' ELSE 'incomplete' END
    END AS status
FROM pg_trigger
WHERE tgrelid = to_regclass($1::text)::oid
  AND tgname IN ($2::text || '_guard_insert', $2::text || '_guard_update');
