-- Lets deferred triggers fire now instead of at COMMIT, which doctor's trial never reaches. No row.
SET CONSTRAINTS ALL IMMEDIATE;
