-- Builds the index of the lookup. No row. It is of the key itself, for only the keys that were looked at are locked.
CREATE INDEX {{ quoted(name ~ "_lookup") }} ON {{ table }} ({{ unique | join(", ") }}){{ " WHERE " ~ where() if where }};
