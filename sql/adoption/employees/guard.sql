-- The guard: refuses an employee whose key another one has, as a unique constraint would, whatever rows were there before. No row.
-- SECURITY DEFINER, so that writers need no right on guard_locks.
CREATE OR REPLACE FUNCTION employees_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
DECLARE
    other employees.id%TYPE;
BEGIN
    -- What was committed before the guard came has no lock here, and a snapshot from before that
    -- commit does not show it either. Such a snapshot does not show this trigger.
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = TG_RELID AND tgname = TG_NAME AND tgenabled = 'A'
    ) THEN
        RAISE serialization_failure USING
            MESSAGE = 'could not serialize access: the transaction is older than the guard of employees',
            HINT = 'The transaction might succeed if retried.';
    END IF;

    -- Waits for whoever writes this key. Then READ COMMITTED sees, in the next statement, what they
    -- committed; a transaction whose snapshot is older than that commit fails here, with 40001.
    INSERT INTO guard_locks (hash)
    VALUES (hashtextextended(NEW.name, NEW.department_id))
    ON CONFLICT (hash) DO UPDATE SET hash = EXCLUDED.hash;

    WITH same_key AS MATERIALIZED (
        SELECT id
        FROM employees
        WHERE hashtextextended(name, department_id) = hashtextextended(NEW.name, NEW.department_id)
          AND department_id IS NOT DISTINCT FROM NEW.department_id
          AND name IS NOT DISTINCT FROM NEW.name
    )
    SELECT min(id)
    INTO other
    FROM same_key
    WHERE id <> NEW.id;

    IF other IS NOT NULL THEN
        RAISE unique_violation USING
            MESSAGE = 'duplicate key value violates the guard of employees',
            DETAIL = format('Key (department_id, name)=(%s, %s) already exists.', NEW.department_id, NEW.name),
            HINT = format('Use the row with id %s, which has this key.', other),
            SCHEMA = TG_TABLE_SCHEMA,
            TABLE = TG_TABLE_NAME,
            CONSTRAINT = 'employees_key';
    END IF;
    RETURN NULL;
END
$$;
