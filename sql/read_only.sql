-- Whether this server refuses writes, as a standby does: read_only.
SELECT current_setting('transaction_read_only')::boolean AS read_only;
