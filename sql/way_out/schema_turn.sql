-- Waits until no other session is making the tables, and lets none begin until this transaction ends: pg_advisory_xact_lock (empty).
SELECT pg_advisory_xact_lock(hashtextextended('onerow schema'::text, 0::bigint));
