-- The guard's trigger for rows of {{ name }} that get another key. No row.
-- Not UPDATE OF: that would miss a key changed by a BEFORE trigger.
CREATE TRIGGER {{ quoted(name ~ "_guard_update") }}
AFTER UPDATE ON {{ table }}
FOR EACH ROW
WHEN ({% for condition in in_key("NEW.") %}{{ condition }}
      AND {% endfor %}({% for part in key %}{{ part.stored("NEW.") }} IS DISTINCT FROM {{ part.stored("OLD.") }}{{ "\n           OR " if not loop.last }}{% endfor %}{{ "\n           OR (" ~ where("OLD.") ~ ") IS NOT TRUE" if where }}))
EXECUTE FUNCTION {{ quoted(name ~ "_guard") }}();
