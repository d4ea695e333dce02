-- Keeps all other writers out of employees until the transaction ends. No row.
LOCK TABLE employees IN SHARE ROW EXCLUSIVE MODE;
