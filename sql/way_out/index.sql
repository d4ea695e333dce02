-- The indexes of a table, and an index of another table in its schema if it has the name $2: name, sql_name, mine (whether it is of this table), is_unique, valid, is_constraint, keys (in alphabetical order, with a collation by which different texts may be equal), nulls_equal, predicate, definition (method, keys, options and predicate).
-- $1 table text
-- $2 name text
SELECT
    indexes.relname::text AS name,
    indexes.oid::regclass::text AS sql_name,
    indrelid = tables.oid AS mine,
    indisunique AS is_unique,
    indisvalid AS valid,
    EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u')) AS is_constraint,
    ARRAY(
        SELECT pg_get_indexdef(indexrelid, number, FALSE) || coalesce(' COLLATE ' || collname::text, '')
        FROM pg_catalog.generate_series(1, indnkeyatts::integer) AS number
        LEFT JOIN pg_collation ON pg_collation.oid = indcollation[number - 1] AND NOT collisdeterministic
        ORDER BY 1
    ) AS keys,
    -- pg_index has this column only since PostgreSQL 15.
    coalesce((pg_catalog.to_jsonb(pg_index) ->> 'indnullsnotdistinct'::text)::boolean, FALSE) AS nulls_equal,
    pg_get_expr(indpred, indrelid) AS predicate,
    substr(
        pg_get_indexdef(indexrelid),
        length(
            pg_catalog.format(
                'CREATE %sINDEX %I ON %s%I.%I USING ',
                CASE WHEN indisunique THEN 'UNIQUE ' END,
                indexes.relname,
                CASE WHEN indexes.relkind = 'I' THEN 'ONLY ' END,
                CASE WHEN tables.relpersistence = 't' THEN 'pg_temp' ELSE nspname::text END,
                tables.relname
            )
        ) + 1
    ) AS definition
FROM pg_class AS tables
INNER JOIN pg_namespace ON pg_namespace.oid = tables.relnamespace
INNER JOIN pg_class AS indexes ON indexes.relnamespace = tables.relnamespace
INNER JOIN pg_index ON indexrelid = indexes.oid
WHERE tables.oid = to_regclass($1::text)::oid
  AND (indrelid = tables.oid OR indexes.relname = $2::text)
ORDER BY name;
