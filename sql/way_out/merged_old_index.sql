-- Drops the index of kept that begins with the resource. No row.
DROP INDEX merged_kept;
