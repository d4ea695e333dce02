-- The guard's trigger for new rows of employees. No row.
-- It fires AFTER the insert, because a later BEFORE trigger could still change the key.
CREATE TRIGGER employees_guard_insert
AFTER INSERT ON employees
FOR EACH ROW
WHEN (NEW.department_id IS NOT NULL AND NEW.name IS NOT NULL)
EXECUTE FUNCTION employees_guard();
