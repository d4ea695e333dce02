-- The guard: refuses a row of {{ name }} whose key another one has, as a unique constraint would, whatever rows were there before. No row.
-- SECURITY DEFINER, so that writers need no right on its locks; and, since it runs as its owner, with a
-- search_path of the owner's choosing, functions by their schema, and types that leave no choice.
-- row_security off: where a policy would hide rows from it, it fails. jit off: without sequential scans a
-- plan that has to do one is dear enough to be compiled, for a tenth of a second.
-- use_column: a name that the table's columns and the function's variables share is the column's.
CREATE FUNCTION {{ quoted(name ~ "_guard") }}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET row_security = off
SET enable_seqscan = off
SET jit = off
AS {{ tag }}
#variable_conflict use_column
DECLARE
    other {{ id.bare }};
BEGIN
    -- What was committed before the guard came left no lock, and a snapshot from before that commit
    -- does not show it either. Such a snapshot does not show this trigger: each guard has its own.
    IF NOT EXISTS (
        SELECT
        FROM pg_catalog.pg_trigger
        WHERE tgrelid = TG_RELID
          AND tgname = TG_NAME
          AND tgfoid = '{{ quoted(name ~ "_guard") }}()'::regprocedure::oid
    ) THEN
        RAISE serialization_failure USING
            MESSAGE = 'could not serialize access: the transaction is older than the guard of {{ name }}',
            HINT = 'The transaction might succeed if retried.';
    END IF;

    -- Waits for whoever writes this key. Then READ COMMITTED sees, in the next statement, what they
    -- committed; a transaction whose snapshot is older than that commit fails here, with 40001.
    INSERT INTO {{ quoted(name ~ "_guard_locks") }} (hash)
    VALUES (pg_catalog.{{ hash(stored("NEW.")) }})
    ON CONFLICT (hash) DO UPDATE SET hash = EXCLUDED.hash;

    WITH same_key AS MATERIALIZED (
        SELECT {{ id.as_id }}
        FROM {{ table }}
        WHERE pg_catalog.{{ hash(stored()) }}
              = pg_catalog.{{ hash(stored("NEW.")) }}
{% for part in key %}
          AND {{ part.stored() }} IS NOT DISTINCT FROM {{ part.stored("NEW.") }}
{% endfor %}
{% if where %}
          AND {{ where.fenced() }}
{% endif %}
    )
    SELECT id
    INTO other
    FROM same_key
    WHERE id {{ id.operator("<>") }} NEW.{{ id.sql }}
    ORDER BY id
    LIMIT 1;

    IF other IS NOT NULL THEN
        RAISE unique_violation USING
            MESSAGE = 'duplicate key value violates the guard of {{ name }}',
            DETAIL = pg_catalog.format({{ literal(guard_detail) }}, {{ guard_values | join(", ") }}),
            HINT = pg_catalog.format('Use the row with id %s, which has this key.', other),
            SCHEMA = TG_TABLE_SCHEMA,
            TABLE = TG_TABLE_NAME,
            CONSTRAINT = '{{ name }}_key';
    END IF;
    RETURN NULL;
END
{{ tag }};
