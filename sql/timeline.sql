-- The timeline of this server, which each promotion raises by one; 0 on a standby: timeline.
-- Behind a pooler the search_path is not set yet, so all names have their schema.
SELECT
    CASE
        WHEN pg_catalog.pg_is_in_recovery() THEN 0
        -- The first eight hexadecimal digits of a WAL file's name are the timeline.
        ELSE (
            'x' OPERATOR(pg_catalog.||) pg_catalog.left(
                pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8
            )
        )::bit(32)::bigint
    END AS timeline;
