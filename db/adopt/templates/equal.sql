-- The rows of {{ name }} that stay and that differ from a row that would go: id, names (of the columns, other than {{ not_compared | join(" and ") | printable }}).
{% set but = "have.key OPERATOR(pg_catalog.<>) ALL (ARRAY[" ~ not_compared | map("literal") | join(", ") ~ "] OPERATOR(pg_catalog.||) $3::text[])" %}
{% set more = "-- $3 but text[], columns that may differ\n" %}
{% include "differing.sql.part" %}
