-- Puts what this transaction makes, and its guard's function looks up, beside {{ name }}, and temporary tables last: set_config.
SELECT set_config('search_path'::text, relnamespace::regnamespace::text || ', pg_temp', TRUE)
FROM pg_class
WHERE oid = {{ literal(table) }}::regclass::oid;
