-- Sets the search_path to the schema of {{ name }}, with pg_temp last, for what this transaction makes and for the guard's function: set_config.
SELECT set_config('search_path'::text, relnamespace::regnamespace::text || ', pg_temp', TRUE)
FROM pg_class
WHERE oid = {{ literal(table) }}::regclass::oid;
