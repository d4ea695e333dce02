-- The rows of {{ name }} that stay and that differ from a row that would go in {{ agree | map(attribute="sql") | join(" or ") | printable }}: id, names (of the columns).
{% set but = "have.key OPERATOR(pg_catalog.=) ANY (ARRAY[" ~ agree | map(attribute="name") | map("literal") | join(", ") ~ "])" %}
{% set more = "" %}
{% include "differing.sql.part" %}
