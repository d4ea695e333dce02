-- Connections: how many there are by state, application and role, and how long they have lasted
-- group Running now
-- headline {connections}
SELECT
    coalesce(state, 'not shown to this role') AS state,
    application_name AS application,
    usename AS role,
    count(*) AS connections,
    round(max(extract(epoch FROM clock_timestamp() - state_change)), 1) AS longest_seconds,
    round(max(extract(epoch FROM clock_timestamp() - xact_start)), 1) AS longest_transaction_seconds,
    current_setting('max_connections') AS max_connections
FROM pg_stat_activity
WHERE datname = current_database()
GROUP BY state, application_name, usename
ORDER BY connections DESC, state, application;
