-- Makes the index by which the rows are found that went into another one. No row.
CREATE INDEX IF NOT EXISTS merged_kept
    ON merged (kept, resource);
