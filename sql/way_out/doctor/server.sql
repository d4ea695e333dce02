-- The server's settings and the role's powers, as this session has them, in one row.
SELECT
    current_setting('server_version_num')::integer AS version_num,
    current_setting('server_version') AS version,
    pg_is_in_recovery() AS standby,
    current_setting('transaction_read_only')::boolean AS read_only,
    current_setting('fsync')::boolean AS fsync,
    current_setting('full_page_writes')::boolean AS full_page_writes,
    (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit,
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', TRUE)::integer, 0) AS connections,
    CASE WHEN rolconnlimit >= 0 THEN rolconnlimit END AS role_connections,
    CASE WHEN datconnlimit >= 0 THEN datconnlimit END AS database_connections,
    current_setting('max_pred_locks_per_transaction')::integer
        * (current_setting('max_connections')::integer
           + current_setting('max_prepared_transactions')::integer) AS predicate_locks,
    (SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock') AS predicate_locks_held,
    -- PostgreSQL remembers ten for each process and prepared transaction that it allows
    -- (PredicateLockShmemInit() in predicate.c, InitializeMaxBackends() in postinit.c). The special
    -- workers among the processes are two since version 18, and one before.
    10 * (
        current_setting('max_connections')::integer
        + current_setting('max_worker_processes')::integer
        + current_setting('max_wal_senders')::integer
        + current_setting('max_prepared_transactions')::integer
        + coalesce(
            current_setting('autovacuum_worker_slots', TRUE)::integer + 2,
            current_setting('autovacuum_max_workers')::integer + 1
        )
    ) AS serializable,
    rolname::text AS role,
    rolsuper AS superuser,
    rolbypassrls AS bypasses_row_security,
    rolcreaterole AS creates_roles,
    rolcreatedb AS creates_databases,
    rolreplication AS replicates,
    has_schema_privilege('public', 'CREATE') AS creates_in_public,
    ARRAY(
        SELECT granted.rolname::text
        FROM pg_auth_members
        INNER JOIN pg_roles AS granted ON granted.oid = roleid
        WHERE member = pg_roles.oid
        ORDER BY granted.rolname
    ) AS member_of
FROM pg_roles
INNER JOIN pg_database ON datname = current_database()
WHERE rolname = current_user;
