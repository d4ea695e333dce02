-- The guard's trigger for rows of departments that get another key. No row.
-- UPDATE OF the key's columns would miss a key that a BEFORE trigger has changed.
CREATE TRIGGER departments_guard_update
AFTER UPDATE ON departments
FOR EACH ROW
WHEN (NEW.name IS NOT NULL
      AND (NEW.name::text IS DISTINCT FROM OLD.name::text))
EXECUTE FUNCTION departments_guard();
