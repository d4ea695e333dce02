-- Waiting: which session waits for a lock, for how long, and which session holds it
-- group Locks and conflicts
-- headline {rows}
SELECT DISTINCT
    round(extract(epoch FROM clock_timestamp() - since), 1) AS seconds,
    waiter.pid AS waiting,
    waiter.application_name AS waiting_application,
    waiter.wait_event AS waits_for,
    left(waiter.query, 200) AS waiting_query,
    blocking AS holding, -- 0 stands for a prepared transaction
    holder.application_name AS holding_application,
    holder.state AS holding_state,
    round(extract(epoch FROM clock_timestamp() - holder.xact_start), 1) AS holding_transaction_seconds,
    left(holder.query, 200) AS holding_query
FROM pg_stat_activity AS waiter
CROSS JOIN LATERAL (
    SELECT min(waitstart) AS since
    FROM pg_locks
    WHERE pg_locks.pid = waiter.pid
      AND NOT granted
) AS waits
CROSS JOIN LATERAL pg_catalog.unnest(pg_blocking_pids(waiter.pid)) AS blocking
LEFT JOIN pg_stat_activity AS holder ON holder.pid = blocking
WHERE waiter.datname = current_database()
  AND waiter.wait_event_type = 'Lock'
ORDER BY seconds DESC, waiting, holding;
