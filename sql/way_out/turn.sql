-- Whether it is this session's turn to change a lookup's index, a guard or a constraint; if so, no other session's until this one ends: mine.
SELECT pg_try_advisory_lock(hashtextextended('onerow adoption'::text, 0::bigint)) AS mine;
