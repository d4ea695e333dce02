-- The statement that makes an empty table with the columns of another: statement.
-- $1 table text
SELECT 'CREATE TEMPORARY TABLE onerow_shape (LIKE ' || to_regclass($1::text)::text || ')' AS statement;
