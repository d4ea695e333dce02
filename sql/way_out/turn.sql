-- Whether it is this session's turn to change guard or constraints; no other's, until it ends: mine.
SELECT pg_try_advisory_lock(hashtextextended('onerow adoption'::text, 0::bigint)) AS mine;
