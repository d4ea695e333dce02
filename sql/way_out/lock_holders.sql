-- The sessions that have a lock on one of these tables: description.
-- $1 tables text[]
SELECT DISTINCT
    CASE
        WHEN pg_locks.pid IS NULL THEN 'a prepared transaction, see pg_prepared_xacts'
        ELSE pg_catalog.format('process %s (%s, %s, since %s)', pg_locks.pid, application_name, state, xact_start)
    END AS description
FROM pg_locks
LEFT JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid
WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation IN (SELECT to_regclass(name)::oid FROM pg_catalog.unnest($1::text[]) AS tables (name))
  AND granted
  AND pg_locks.pid IS DISTINCT FROM pg_backend_pid()
ORDER BY description
LIMIT 5;
