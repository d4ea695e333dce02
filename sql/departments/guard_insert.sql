-- The guard's trigger for new rows of departments. No row.
-- AFTER, because a BEFORE trigger that comes later could still change the key.
CREATE TRIGGER departments_guard_insert
AFTER INSERT ON departments
FOR EACH ROW
WHEN (NEW.name IS NOT NULL)
EXECUTE FUNCTION departments_guard();
