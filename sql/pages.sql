-- How many pages of an index a transaction can lock one by one before it locks the whole index: pages bigint.
SELECT
    CASE
        WHEN setting::bigint >= 0 THEN setting::bigint
        ELSE current_setting('max_pred_locks_per_transaction')::bigint / -setting::bigint
    END - 1 AS pages
FROM pg_settings
WHERE name = 'max_pred_locks_per_relation';
