-- Sets for this transaction what start-up options say where no pooler drops them: set_config, several.
-- $1 statement_timeout text
-- $2 lock_timeout text
-- $3 idle_in_transaction_session_timeout text
-- $4 enable_seqscan text
-- $5 client_min_messages text
SELECT
    set_config('statement_timeout', $1, TRUE),
    set_config('lock_timeout', $2, TRUE),
    set_config('idle_in_transaction_session_timeout', $3, TRUE),
    set_config('enable_seqscan', $4, TRUE),
    set_config('client_min_messages', $5, TRUE);
