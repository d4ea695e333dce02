-- The timeline of this server, which a promotion makes one higher; 0 on a standby: timeline.
SELECT
    CASE
        WHEN pg_is_in_recovery() THEN 0
        -- The first eight digits of the name, hexadecimal.
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
    END AS timeline;
