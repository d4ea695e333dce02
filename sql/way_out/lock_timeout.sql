-- Sets how long this transaction waits for a lock: set_config.
-- $1 milliseconds bigint
SELECT set_config('lock_timeout'::text, $1::bigint::text, TRUE);
