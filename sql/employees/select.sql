-- The row of employees with this key, the lowest id where several share it, and how many do: id bigint, department_id bigint, name text, created_at timestamp with time zone, copies bigint. No row if there is none.
-- $1 department_id bigint
-- $2 name text
-- Only employees_lookup can serve this, so that the predicate lock is one page of it: no other index has
-- the hash, none serves IS NOT DISTINCT FROM, and MATERIALIZED keeps ORDER BY from using the primary key.
-- The casts to exact types let PostgreSQL choose no operator or function but its own.
WITH same_key AS MATERIALIZED (
    SELECT id, department_id, name, created_at
    FROM employees
    WHERE hash_record_extended(ROW(department_id::bigint, name::text), 0::bigint)
          = hash_record_extended(ROW($1::bigint, $2::text), 0::bigint)
      AND department_id::bigint IS NOT DISTINCT FROM $1::bigint
      AND name::text IS NOT DISTINCT FROM $2::text
)
SELECT id, department_id, name, created_at, count(*) OVER () AS copies
FROM same_key
ORDER BY id
LIMIT 1;
