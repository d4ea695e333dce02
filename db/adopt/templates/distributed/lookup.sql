-- Builds the index of the lookup. No row.
-- It is of the key itself, because these engines lock only the keys that a transaction has looked at.
CREATE INDEX {{ quoted(name ~ "_lookup") }} ON {{ table }} ({{ unique | join(", ") }}){{ " WHERE " ~ where() if where }};
