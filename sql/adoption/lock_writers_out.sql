-- Keeps all other writers out until the transaction ends. No row.
LOCK TABLE departments, employees IN SHARE ROW EXCLUSIVE MODE;
