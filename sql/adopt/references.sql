-- The foreign keys that refer to a table; several on the same columns are one row: oid (of the table that refers), kind, schema, table_name (both quoted where SQL quotes them), bare, columns, refers_to, cascades (whether one of them is ON DELETE CASCADE).
-- $1 table oid
SELECT
    conrelid::bigint AS oid,
    relkind::pg_catalog.text AS kind,
    pg_catalog.quote_ident(nspname::pg_catalog.text) AS schema,
    pg_catalog.quote_ident(relname::pg_catalog.text) AS table_name,
    relname::pg_catalog.text AS bare,
    ARRAY(
        SELECT attname::pg_catalog.text
        FROM pg_catalog.unnest(conkey) WITH ORDINALITY AS keys (number, place)
        INNER JOIN pg_catalog.pg_attribute
            ON attrelid OPERATOR(pg_catalog.=) conrelid
           AND attnum OPERATOR(pg_catalog.=) number
        ORDER BY place
    ) AS columns,
    ARRAY(
        SELECT attname::pg_catalog.text
        FROM pg_catalog.unnest(confkey) WITH ORDINALITY AS keys (number, place)
        INNER JOIN pg_catalog.pg_attribute
            ON attrelid OPERATOR(pg_catalog.=) confrelid
           AND attnum OPERATOR(pg_catalog.=) number
        ORDER BY place
    ) AS refers_to,
    pg_catalog.bool_or(confdeltype OPERATOR(pg_catalog.=) 'c'::"char") AS cascades
FROM pg_catalog.pg_constraint
INNER JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) conrelid
INNER JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
WHERE contype OPERATOR(pg_catalog.=) 'f'::"char"
  AND confrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
  AND conparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
GROUP BY conrelid, conkey, confrelid, confkey, relkind, nspname, relname
ORDER BY schema, bare, columns;
