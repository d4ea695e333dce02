-- Whether this server refuses writes, as a standby does, and this session has not its settings: read_only, unset.
SELECT
    current_setting('transaction_read_only')::boolean AS read_only,
    current_setting('enable_seqscan')::boolean AS unset;
