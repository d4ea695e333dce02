-- Changes those settings that have another value, for this transaction or for the rest of the session: set_config.
-- $1 settings jsonb, {"name": "value"}
-- $2 transaction boolean, true for this transaction, false for the session
-- Settings that this version of PostgreSQL does not have are left out. synchronous_commit is changed
-- only where it is off: all other values wait at least for this server's disk, and are the owner's choice.
-- The search_path is one of the settings, and is not set yet, so all names have their schema.
SELECT pg_catalog.set_config(key, value, $2::boolean)
FROM pg_catalog.jsonb_each_text($1::pg_catalog.jsonb)
WHERE CASE
    WHEN key OPERATOR(pg_catalog.=) 'synchronous_commit'
        THEN pg_catalog.current_setting(key) OPERATOR(pg_catalog.=) 'off'
    ELSE pg_catalog.current_setting(key, TRUE) OPERATOR(pg_catalog.<>) value
END;
