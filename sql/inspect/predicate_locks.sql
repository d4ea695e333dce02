-- Predicate locks: what serializable transactions have read and still watch, by relation and kind
-- group Locks and conflicts
-- headline {locks}
SELECT
    relation::regclass::text AS relation,
    locktype AS kind,
    count(*) AS locks,
    pg_catalog.count(DISTINCT virtualtransaction) AS transactions,
    current_setting('max_pred_locks_per_transaction') AS max_pred_locks_per_transaction
FROM pg_locks
WHERE mode = 'SIReadLock'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY relation, locktype
ORDER BY locks DESC, relation, kind;
