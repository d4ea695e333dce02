-- Slowest statements: by their mean time, where the extension pg_stat_statements is there
-- group Plans and statements
SELECT
    round(mean_exec_time::numeric, 3) AS mean_milliseconds,
    round(max_exec_time::numeric, 3) AS max_milliseconds,
    calls,
    round(total_exec_time::numeric) AS total_milliseconds,
    rows,
    left(query, 400) AS statement
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY mean_exec_time DESC, calls DESC, queryid;
