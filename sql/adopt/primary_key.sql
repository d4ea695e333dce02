-- The columns of a table's primary key, in their order: name.
-- $1 table oid
SELECT attname::pg_catalog.text AS name
FROM pg_catalog.pg_constraint
CROSS JOIN pg_catalog.unnest(conkey) WITH ORDINALITY AS keys (number, place)
INNER JOIN pg_catalog.pg_attribute
    ON attrelid OPERATOR(pg_catalog.=) conrelid
   AND attnum OPERATOR(pg_catalog.=) number
WHERE conrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
  AND contype OPERATOR(pg_catalog.=) 'p'::"char"
ORDER BY place;
