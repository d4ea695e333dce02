-- Lets deferred triggers fire now instead of at COMMIT. No row.
SET CONSTRAINTS ALL IMMEDIATE;
