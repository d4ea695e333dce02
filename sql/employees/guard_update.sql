-- The guard's trigger for rows of employees that get another key. No row.
-- Not UPDATE OF: that would miss a key changed by a BEFORE trigger.
CREATE TRIGGER employees_guard_update
AFTER UPDATE ON employees
FOR EACH ROW
WHEN (NEW.department_id IS NOT NULL
      AND NEW.name IS NOT NULL
      AND (NEW.department_id::bigint IS DISTINCT FROM OLD.department_id::bigint
           OR NEW.name::text IS DISTINCT FROM OLD.name::text))
EXECUTE FUNCTION employees_guard();
