-- Adds the column filled to merged. No row.
ALTER TABLE merged
    ADD COLUMN IF NOT EXISTS filled jsonb;
