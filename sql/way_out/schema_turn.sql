-- Waits for whoever makes tables just now, and keeps others from it until this transaction ends: pg_advisory_xact_lock, empty.
SELECT pg_advisory_xact_lock(hashtextextended('onerow schema'::text, 0::bigint));
