-- Keeps all other writers out of departments until the transaction ends. No row.
LOCK TABLE departments IN SHARE ROW EXCLUSIVE MODE;
