-- Whether a table's guard is "on", "off", or "incomplete" because a trigger is disabled or missing: status.
-- $1 table text
-- $2 resource text, with which the names of the triggers begin
SELECT
    CASE count(*) FILTER (WHERE tgenabled = 'A')
        WHEN 2 THEN 'on'
        ELSE CASE count(*) WHEN 0 THEN 'off' ELSE 'incomplete' END
    END AS status
FROM pg_trigger
WHERE tgrelid = to_regclass($1::text)::oid
  AND tgname IN ($2::text || '_guard_insert', $2::text || '_guard_update');
