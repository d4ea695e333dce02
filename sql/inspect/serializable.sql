-- Serializable transactions: how many the server remembers, and whether it has to forget the oldest
-- group Locks and conflicts
-- headline remembered: {remembered}, some forgotten: {some_are_forgotten}
-- The server keeps transactions that have ended for as long as an older one goes on. Where there is
-- no room for more, it makes the oldest one, without a process, and conflicts with what they had read
-- may go unseen. `python -m db doctor` says how many there is room for. Before PostgreSQL 17 the name
-- is Serial.
SELECT
    (
        SELECT pg_catalog.count(DISTINCT virtualtransaction)
        FROM pg_locks
        WHERE mode = 'SIReadLock'
          AND virtualtransaction <> '-1/0'
    ) AS remembered,
    EXISTS (
        SELECT
        FROM pg_locks
        WHERE mode = 'SIReadLock'
          AND virtualtransaction = '-1/0'
    ) AS some_are_forgotten,
    (
        SELECT round(max(extract(epoch FROM clock_timestamp() - xact_start)), 3)
        FROM pg_locks
        INNER JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid
        WHERE mode = 'SIReadLock'
    ) AS oldest_seconds,
    blks_zeroed + blks_hit AS writers_forgotten, -- an estimate, of those that had written
    stats_reset AS since
FROM pg_stat_slru
WHERE name IN ('serializable', 'Serial');
