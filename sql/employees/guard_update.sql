-- The guard's trigger for rows of employees that get another key. No row.
-- UPDATE OF the key's columns would miss a key that a BEFORE trigger has changed.
CREATE TRIGGER employees_guard_update
AFTER UPDATE ON employees
FOR EACH ROW
WHEN (NEW.department_id IS NOT NULL
      AND NEW.name IS NOT NULL
      AND (NEW.department_id::bigint IS DISTINCT FROM OLD.department_id::bigint
           OR NEW.name::text IS DISTINCT FROM OLD.name::text))
EXECUTE FUNCTION employees_guard();
