-- Keeps all other writers out of {{ name }} until the transaction ends. No row.
LOCK TABLE {{ table }} IN SHARE ROW EXCLUSIVE MODE;
