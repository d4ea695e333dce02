-- Whether this server refuses writes, as a standby does, and whether this session lacks its settings: read_only, unset.
-- The search_path is not set yet, so all names have their schema.
SELECT
    pg_catalog.current_setting('transaction_read_only')::boolean AS read_only,
    coalesce(pg_catalog.current_setting('enable_seqscan', TRUE)::boolean, FALSE) AS unset;
