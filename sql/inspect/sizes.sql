-- Sizes: what tables and indexes take, how they grow, and how often an index is used
-- group Space and indexes
-- Growth is estimated. It is the rows that were inserted and not deleted since the counters began, at
-- today's bytes a row, and at most today's size.
WITH tables AS (
    SELECT
        relid,
        relname AS table_name,
        n_live_tup AS live_rows,
        n_dead_tup AS dead_rows,
        n_tup_ins AS inserted,
        n_tup_del AS deleted,
        CASE WHEN n_live_tup > 0
            THEN greatest(-1, least(1, (n_tup_ins - n_tup_del)::numeric / n_live_tup::numeric))
        END AS grown
    FROM pg_stat_user_tables
),
relations AS (
    SELECT relid, relid AS relation, 'table' AS kind, NULL::bigint AS scans
    FROM tables
    UNION ALL
    SELECT relid, indexrelid, 'index', idx_scan
    FROM pg_stat_user_indexes
)
SELECT
    relation::regclass::text AS relation,
    kind,
    pg_size_pretty(size) AS size,
    pg_size_pretty((size::numeric * grown)::bigint) AS grown_by,
    live_rows,
    dead_rows,
    inserted,
    deleted,
    scans,
    stats_reset AS since -- NULL means since the database was made, or since a crash
FROM relations
JOIN tables USING (relid)
CROSS JOIN LATERAL pg_total_relation_size(relation::regclass) AS whole
CROSS JOIN LATERAL (
    SELECT CASE kind WHEN 'table' THEN whole - pg_indexes_size(relation::regclass) ELSE whole END AS size
) AS own
JOIN pg_stat_database ON datname = current_database()
ORDER BY table_name, kind DESC, own.size DESC, 1;
