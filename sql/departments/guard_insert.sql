-- The guard's trigger for new rows of departments. No row.
-- It fires AFTER the insert, because a later BEFORE trigger could still change the key.
CREATE TRIGGER departments_guard_insert
AFTER INSERT ON departments
FOR EACH ROW
WHEN (NEW.name IS NOT NULL)
EXECUTE FUNCTION departments_guard();
