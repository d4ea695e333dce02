-- Builds the unique index of {{ name }} while writers go on. No row. If it fails, it leaves an INVALID index.
{% if where %}
-- It is partial, because rows outside the condition are no copies, and so it cannot become a constraint.
{% elif not constraint %}
-- It is of expressions, and so it cannot become a constraint.
{% endif %}
{% if arrays %}
-- Before version 15 two NULLs are different to a unique index. Two arrays of one NULL each are equal.
{% endif %}
CREATE UNIQUE INDEX CONCURRENTLY {{ quoted(name ~ "_key") }} ON {{ table }} ({{ unique | join(", ") }}){{ " NULLS NOT DISTINCT" if nulls_not_distinct }}{{ " WHERE " ~ where() if where }};
