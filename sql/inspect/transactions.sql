-- Commits and rollbacks: how many there were since the last reset, and how many deadlocks
-- group Locks and conflicts
-- headline deadlocks: {deadlocks}
-- A serialization failure is counted as a rollback, like any other. A conflict is a query that a
-- standby's recovery cancelled.
SELECT
    xact_commit AS commits,
    xact_rollback AS rollbacks,
    round(
        100.0 * xact_rollback::numeric / nullif((xact_commit + xact_rollback)::numeric, 0.0), 2
    ) AS rollback_percent,
    conflicts,
    deadlocks,
    stats_reset AS since -- NULL means since the database was made, or since a crash
FROM pg_stat_database
WHERE datname = current_database();
