-- Whether this session may enforce now; no other may until it ends: mine.
SELECT pg_try_advisory_lock(hashtextextended('onerow enforce', 0)) AS mine;
