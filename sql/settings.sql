-- Sets what is not as it should be, for this transaction or for the rest of the session: set_config, of each.
-- $1 settings jsonb, {"name": "value"}
-- $2 transaction boolean, or else the session
-- A setting that this version of PostgreSQL does not have is left out. What a commit waits for is
-- left as it is, too, but where it does not even wait for this server's own disk.
-- The search_path is one of them, and until it is set names have their schema.
SELECT pg_catalog.set_config(key, value, $2::boolean)
FROM pg_catalog.jsonb_each_text($1::pg_catalog.jsonb)
WHERE CASE
    WHEN key OPERATOR(pg_catalog.=) 'synchronous_commit'
        THEN pg_catalog.current_setting(key) OPERATOR(pg_catalog.=) 'off'
    ELSE pg_catalog.current_setting(key, TRUE) OPERATOR(pg_catalog.<>) value
END;
