-- Serializable transactions that the server remembers, and whether it has to forget the oldest
-- While an older one goes on, those that have ended are kept. Where there is no room for more, the
-- oldest are made one, without a process, and conflicts with what they had read may go unseen.
-- `python -m db doctor` says how many there is room for. Serial is the name before PostgreSQL 17.
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
    blks_zeroed + blks_hit AS writers_forgotten, -- about, and of those alone that had written
    stats_reset AS since
FROM pg_stat_slru
WHERE name IN ('serializable', 'Serial');
