-- Sets what is not as it should be, for this transaction or for the rest of the session: set_config, of each.
-- $1 settings jsonb, {"name": "value"}
-- $2 transaction boolean, or else the session
-- A setting that this version of PostgreSQL does not have is left out. What a commit waits for is
-- left as it is, too, but where it does not even wait for this server's own disk.
SELECT pg_catalog.set_config(key, value, $2::boolean)
FROM jsonb_each_text($1::jsonb)
WHERE CASE key
    WHEN 'synchronous_commit' THEN current_setting(key) = 'off'
    ELSE current_setting(key, TRUE) <> value
END;
