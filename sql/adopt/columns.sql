-- The columns of a table: name, quoted, type, bare (the type without length or digits), type_schema, type_name, category (as in pg_type), not_null, default_value (as SQL, of the column or else of its domain), generated, identity, collation (if it is not the type's own), labels (those of an enum), primary_key (whether this column alone is it), indexed (whether a btree that is not unique begins with it), set_by (the tables whose deleted rows set it to NULL or to its default).
-- $1 table oid
-- The search_path is pg_catalog alone here, so that PostgreSQL writes all other names with their schema.
WITH RECURSIVE based AS (
    SELECT attnum, atttypid AS type, atttypmod AS modifier, attnotnull AS not_null
    FROM pg_catalog.pg_attribute
    WHERE attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
      AND attnum OPERATOR(pg_catalog.>) 0::smallint
      AND NOT attisdropped
    UNION ALL
    -- For a domain, take the type on which it is based.
    SELECT attnum, typbasetype, typtypmod, not_null OR typnotnull
    FROM based
    INNER JOIN pg_catalog.pg_type
        ON pg_type.oid OPERATOR(pg_catalog.=) type
       AND typtype OPERATOR(pg_catalog.=) 'd'::"char"
)
SELECT
    attname::pg_catalog.text AS name,
    pg_catalog.quote_ident(attname::pg_catalog.text) AS quoted,
    pg_catalog.format_type(type, modifier) AS type,
    pg_catalog.format_type(type, NULL) AS bare,
    pg_catalog.quote_ident(nspname::pg_catalog.text) AS type_schema,
    base.typname::pg_catalog.text AS type_name,
    base.typtype::pg_catalog.text AS category,
    not_null,
    coalesce(
        pg_catalog.pg_get_expr(adbin, adrelid),
        pg_catalog.pg_get_expr(declared.typdefaultbin, 0::pg_catalog.oid)
    ) AS default_value,
    attgenerated OPERATOR(pg_catalog.<>) ''::"char" AS generated,
    attidentity::pg_catalog.text AS identity,
    CASE WHEN attcollation OPERATOR(pg_catalog.<>) base.typcollation THEN (
        SELECT pg_catalog.format(
            '%s.%I', collnamespace::pg_catalog.regnamespace, collname
        )
        FROM pg_catalog.pg_collation
        WHERE pg_collation.oid OPERATOR(pg_catalog.=) attcollation
    ) END AS collation,
    ARRAY(
        SELECT enumlabel::pg_catalog.text
        FROM pg_catalog.pg_enum
        WHERE enumtypid OPERATOR(pg_catalog.=) base.oid
        ORDER BY enumsortorder
    ) AS labels,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_constraint
        WHERE conrelid OPERATOR(pg_catalog.=) attrelid
          AND contype OPERATOR(pg_catalog.=) 'p'::"char"
          AND conkey OPERATOR(pg_catalog.=) ARRAY[pg_attribute.attnum]
    ) AS primary_key,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_index
        INNER JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) indexrelid
        INNER JOIN pg_catalog.pg_am ON pg_am.oid OPERATOR(pg_catalog.=) relam
        WHERE indrelid OPERATOR(pg_catalog.=) attrelid
          AND indkey[0] OPERATOR(pg_catalog.=) pg_attribute.attnum
          AND indpred IS NULL
          AND indisvalid
          AND NOT indisunique
          AND amname OPERATOR(pg_catalog.=) 'btree'
    ) AS indexed,
    ARRAY(
        SELECT DISTINCT confrelid::pg_catalog.regclass::pg_catalog.text AS parent
        FROM pg_catalog.pg_constraint
        WHERE conrelid OPERATOR(pg_catalog.=) attrelid
          AND contype OPERATOR(pg_catalog.=) 'f'::"char"
          AND confdeltype OPERATOR(pg_catalog.=) ANY (ARRAY['n', 'd']::"char"[])
          -- Since PostgreSQL 15, ON DELETE SET NULL and SET DEFAULT may name some of the columns.
          AND CASE pg_catalog.jsonb_typeof(
              pg_catalog.to_jsonb(pg_constraint) OPERATOR(pg_catalog.->) 'confdelsetcols'
          )
              WHEN 'array' THEN
                  pg_catalog.to_jsonb(pg_constraint) OPERATOR(pg_catalog.->) 'confdelsetcols'
                  OPERATOR(pg_catalog.@>) pg_catalog.to_jsonb(pg_attribute.attnum)
              ELSE pg_attribute.attnum OPERATOR(pg_catalog.=) ANY (conkey)
          END
        ORDER BY parent
    ) AS set_by
FROM based
INNER JOIN pg_catalog.pg_attribute
    ON attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
   AND pg_attribute.attnum OPERATOR(pg_catalog.=) based.attnum
INNER JOIN pg_catalog.pg_type AS base ON base.oid OPERATOR(pg_catalog.=) type
INNER JOIN pg_catalog.pg_type AS declared ON declared.oid OPERATOR(pg_catalog.=) atttypid
INNER JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) base.typnamespace
LEFT JOIN pg_catalog.pg_attrdef
    ON adrelid OPERATOR(pg_catalog.=) attrelid
   AND adnum OPERATOR(pg_catalog.=) pg_attribute.attnum
WHERE base.typtype OPERATOR(pg_catalog.<>) 'd'::"char"
ORDER BY pg_attribute.attnum;
