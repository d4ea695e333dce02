-- Keeps foreign keys from being added until the transaction ends; readers and writers go on. No row.
LOCK TABLE departments, employees IN ROW EXCLUSIVE MODE;
