-- The row of departments with this key, the lowest id where several share it, and how many do: id bigint, name text, created_at timestamp with time zone, copies bigint. No row if there is none.
-- $1 name text
-- Only departments_lookup can serve this, so that the predicate lock is one page of it: no other index has
-- the hash, none serves IS NOT DISTINCT FROM, and MATERIALIZED keeps ORDER BY from using the primary key.
-- The casts to exact types let PostgreSQL choose no operator or function but its own.
WITH same_key AS MATERIALIZED (
    SELECT id, name, created_at
    FROM departments
    WHERE hash_record_extended(ROW(name::text), 0::bigint)
          = hash_record_extended(ROW($1::text), 0::bigint)
      AND name::text IS NOT DISTINCT FROM $1::text
)
SELECT id, name, created_at, count(*) OVER () AS copies
FROM same_key
ORDER BY id
LIMIT 1;
