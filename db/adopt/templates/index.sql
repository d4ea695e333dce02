-- Builds the unique index of {{ name }} while writers go on. No row. It stays behind INVALID where it fails.
{% if where %}
-- It is partial, for rows outside the condition are no copies, and so it cannot become a constraint.
{% elif not constraint %}
-- It is of expressions, and so it cannot become a constraint.
{% endif %}
{% if arrays %}
-- Before version 15 a unique index takes two NULLs for different, but not two arrays of one NULL.
{% endif %}
CREATE UNIQUE INDEX CONCURRENTLY {{ quoted(name ~ "_key") }} ON {{ table }} ({{ unique | join(", ") }}){{ " NULLS NOT DISTINCT" if nulls_not_distinct }}{{ " WHERE " ~ where() if where }};
