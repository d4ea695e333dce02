-- Who holds a lock on a table that a change of it waits for: pid, application_name, state, since.
-- $1 resource text
SELECT DISTINCT pg_locks.pid, application_name, state, xact_start AS since
FROM pg_locks
INNER JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid
WHERE relation = to_regclass($1)
  AND granted
  AND mode LIKE '%Exclusive%'
  AND pg_locks.pid <> pg_backend_pid()
ORDER BY since
LIMIT 5;
