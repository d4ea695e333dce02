-- The guard: refuses a row of departments whose key another one has, as a unique constraint would, whatever rows were there before. No row.
-- SECURITY DEFINER, so that writers need no right on its locks; and, since it runs as its owner, with a
-- search_path of the owner's choosing, functions by their schema, and types that leave no choice.
-- row_security off: where a policy would hide rows from it, it fails. jit off: without sequential scans a
-- plan that has to do one is dear enough to be compiled, for a tenth of a second.
-- use_column: a name that the table's columns and the function's variables share is the column's.
CREATE FUNCTION departments_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET row_security = off
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    other bigint;
BEGIN
    -- What was committed before the guard came left no lock, and a snapshot from before that commit
    -- does not show it either. Such a snapshot does not show this trigger: each guard has its own.
    IF NOT EXISTS (
        SELECT
        FROM pg_catalog.pg_trigger
        WHERE tgrelid = TG_RELID
          AND tgname = TG_NAME
          AND tgfoid = 'departments_guard()'::regprocedure::oid
    ) THEN
        RAISE serialization_failure USING
            MESSAGE = 'could not serialize access: the transaction is older than the guard of departments',
            HINT = 'The transaction might succeed if retried.';
    END IF;

    -- Waits for whoever writes this key. Then READ COMMITTED sees, in the next statement, what they
    -- committed; a transaction whose snapshot is older than that commit fails here, with 40001.
    INSERT INTO departments_guard_locks (hash)
    VALUES (pg_catalog.hash_record_extended(ROW(NEW.name::text), 0::bigint))
    ON CONFLICT (hash) DO UPDATE SET hash = EXCLUDED.hash;

    WITH same_key AS MATERIALIZED (
        SELECT id
        FROM departments
        WHERE pg_catalog.hash_record_extended(ROW(name::text), 0::bigint)
              = pg_catalog.hash_record_extended(ROW(NEW.name::text), 0::bigint)
          AND name::text IS NOT DISTINCT FROM NEW.name::text
    )
    SELECT id
    INTO other
    FROM same_key
    WHERE id OPERATOR(pg_catalog.<>) NEW.id
    ORDER BY id
    LIMIT 1;

    IF other IS NOT NULL THEN
        RAISE unique_violation USING
            MESSAGE = 'duplicate key value violates the guard of departments',
            DETAIL = pg_catalog.format('Key (name)=(%s) already exists.', NEW.name),
            HINT = pg_catalog.format('Use the row with id %s, which has this key.', other),
            SCHEMA = TG_TABLE_SCHEMA,
            TABLE = TG_TABLE_NAME,
            CONSTRAINT = 'departments_key';
    END IF;
    RETURN NULL;
END
$$;
