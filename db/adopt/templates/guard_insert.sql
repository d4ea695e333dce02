-- The guard's trigger for new rows of {{ name }}. No row.
-- It fires AFTER the insert, because a later BEFORE trigger could still change the key.
CREATE TRIGGER {{ quoted(name ~ "_guard_insert") }}
AFTER INSERT ON {{ table }}
FOR EACH ROW
{% if in_key("NEW.") %}
WHEN ({{ in_key("NEW.") | join(" AND ") }})
{% endif %}
EXECUTE FUNCTION {{ quoted(name ~ "_guard") }}();
