-- Makes the guard: it refuses a row of {{ name }} whose key another row has, as a unique constraint would, and leaves the rows that are there. No row.
-- SECURITY DEFINER lets it write to its locks, on which writers need no right. Because it runs with its
-- owner's rights, its search_path is fixed, functions have their schema, and exact types leave no choice of
-- operators. With row_security off it fails where a policy would hide rows from it. With enable_seqscan off,
-- a plan that must scan the table costs so much that jit would compile it for a tenth of a second, so jit is
-- off. use_column lets a name that is both a column's and a variable's mean the column.
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
    -- A row that was committed before the guard was made left no lock here, and an older snapshot does
    -- not show the row either. Such a snapshot does not show this guard's trigger, and is refused.
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

    -- This waits for every other writer of the key. At READ COMMITTED the next statement then sees what
    -- the other writer committed. A transaction whose snapshot is older than that fails here, with 40001.
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
