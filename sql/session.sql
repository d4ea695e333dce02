-- Whether this server refuses writes, as a standby does, and this session has not its settings: read_only, unset.
-- It comes before the search_path is set: names have their schema.
SELECT
    pg_catalog.current_setting('transaction_read_only')::boolean AS read_only,
    coalesce(pg_catalog.current_setting('enable_seqscan', TRUE)::boolean, FALSE) AS unset;
