-- Who is waiting for whom
SELECT
    waiter.pid AS waiting,
    waiter.application_name AS waiting_application,
    round(extract(epoch FROM clock_timestamp() - waiter.state_change), 1) AS seconds,
    waiter.wait_event AS waits_for,
    left(waiter.query, 200) AS waiting_query,
    blocking AS holding,
    holder.application_name AS holding_application,
    holder.state AS holding_state,
    round(extract(epoch FROM clock_timestamp() - holder.xact_start), 1) AS holding_transaction_seconds,
    left(holder.query, 200) AS holding_query
FROM pg_stat_activity AS waiter
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiter.pid)) AS blocking
LEFT JOIN pg_stat_activity AS holder ON holder.pid = blocking -- none: a prepared transaction
WHERE waiter.datname = current_database()
ORDER BY seconds DESC, waiting, holding;
