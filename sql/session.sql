-- Whether this server refuses writes, as a standby does, and this session has not its settings: read_only, unset.
SELECT
    current_setting('transaction_read_only')::boolean AS read_only,
    coalesce(current_setting('enable_seqscan', TRUE)::boolean, FALSE) AS unset;
