-- The timeline of this server, which a promotion makes one higher; 0 on a standby: timeline.
-- Behind a pooler the search_path is not set yet: names have their schema.
SELECT
    CASE
        WHEN pg_catalog.pg_is_in_recovery() THEN 0
        -- The first eight digits of the name, hexadecimal.
        ELSE (
            'x' OPERATOR(pg_catalog.||) pg_catalog.left(
                pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8
            )
        )::bit(32)::bigint
    END AS timeline;
