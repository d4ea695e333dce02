-- The functions and tables in a table's schema that have the name of a part of its guard and are no such part: description. No row if there are none.
-- $1 table text
-- $2 resource text, with which the names of the guard's parts begin
SELECT 'the function ' || pg_proc.oid::regprocedure::text AS description
FROM pg_class
INNER JOIN pg_proc ON pronamespace = relnamespace AND proname::text = $2::text || '_guard'
WHERE pg_class.oid = to_regclass($1::text)::oid
  AND pronargs = 0
  AND (
      prorettype <> 'trigger'::regtype::oid
      OR EXISTS (
          SELECT
          FROM pg_trigger
          WHERE tgfoid = pg_proc.oid
            AND NOT (
                tgrelid = pg_class.oid
                AND tgname IN ($2::text || '_guard_insert', $2::text || '_guard_update')
            )
      )
  )
UNION ALL
SELECT 'the table ' || locks.oid::regclass::text
FROM pg_class AS tables
INNER JOIN pg_class AS locks
    ON locks.relnamespace = tables.relnamespace
   AND locks.relname::text = $2::text || '_guard_locks'
WHERE tables.oid = to_regclass($1::text)::oid
  AND (
      locks.relkind <> 'r'
      OR ARRAY(
          SELECT attname::text || ' ' || format_type(atttypid, atttypmod)
          FROM pg_attribute
          WHERE attrelid = locks.oid
            AND attnum > 0
            AND NOT attisdropped
      ) OPERATOR(pg_catalog.<>) ARRAY['hash bigint']
  );
