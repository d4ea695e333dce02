-- Makes this transaction plan its lookups as the service's connections do: set_config.
SELECT set_config('enable_seqscan', 'off', TRUE);
