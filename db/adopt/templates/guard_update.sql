-- The guard's trigger for rows of {{ name }} that get another key. No row.
-- UPDATE OF the key's columns would miss a key that a BEFORE trigger has changed.
CREATE TRIGGER {{ quoted(name ~ "_guard_update") }}
AFTER UPDATE ON {{ table }}
FOR EACH ROW
WHEN ({% for condition in in_key("NEW.") %}{{ condition }}
      AND {% endfor %}({% for part in key %}{{ part.stored("NEW.") }} IS DISTINCT FROM {{ part.stored("OLD.") }}{{ "\n           OR " if not loop.last }}{% endfor %}{{ "\n           OR (" ~ where("OLD.") ~ ") IS NOT TRUE" if where }}))
EXECUTE FUNCTION {{ quoted(name ~ "_guard") }}();
