-- The guard's trigger for new rows of {{ name }}. No row.
-- AFTER, because a BEFORE trigger that comes later could still change the key.
CREATE TRIGGER {{ quoted(name ~ "_guard_insert") }}
AFTER INSERT ON {{ table }}
FOR EACH ROW
{% if in_key("NEW.") %}
WHEN ({{ in_key("NEW.") | join(" AND ") }})
{% endif %}
EXECUTE FUNCTION {{ quoted(name ~ "_guard") }}();
