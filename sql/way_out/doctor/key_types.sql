-- The columns of a table's key whose types store or compare other than what they are sent: name, type, trouble.
-- $1 table text
-- $2 key_columns text[]
WITH RECURSIVE named AS (
    SELECT attnum, attname, atttypid AS type, atttypmod AS modifier
    FROM pg_attribute
    WHERE attrelid = to_regclass($1::text)::oid
      AND attname = ANY ($2::text[])
    UNION ALL
    -- For a domain, take the type on which it is based.
    SELECT attnum, attname, typbasetype, typtypmod
    FROM named
    INNER JOIN pg_type ON oid = type AND typtype = 'd'
),
judged AS (
    SELECT
        attnum,
        attname::text AS name,
        format_type(type, modifier) AS type,
        CASE
            WHEN type = 'char(1)'::regtype::oid THEN 'takes blanks at the end for nothing'
            WHEN type = '"char"'::regtype::oid THEN 'keeps one byte'
            WHEN type = 'name'::regtype::oid THEN 'cuts off what is longer than 63 bytes'
            WHEN type IN ('float4'::regtype::oid, 'float8'::regtype::oid) THEN 'rounds'
            -- The scale is in the last eleven bits of the modifier, with a sign. A negative one rounds.
            WHEN type = 'numeric'::regtype::oid AND modifier >= 4
                AND (((modifier - 4) & 2047) # 1024) - 1024 < 0 THEN 'rounds'
            WHEN type IN (
                'timestamp'::regtype::oid,
                'timestamptz'::regtype::oid,
                'time'::regtype::oid,
                'timetz'::regtype::oid
            )
                AND modifier BETWEEN 0 AND 5 THEN 'rounds'
            WHEN typname = 'citext' THEN 'a constraint compares without case, and the lookup with it'
        END AS trouble
    FROM named
    INNER JOIN pg_type ON oid = type
)
SELECT name, type, trouble
FROM judged
WHERE trouble IS NOT NULL
ORDER BY attnum;
