-- The row of {{ name }} just deleted: id {{ id.type }}. No row if there was none.
-- $1 id {{ id.type }}{{ id.one_of }}
{% for reference in references if reference.cascades %}
-- The rows of {{ reference.table }} that refer to it go with it, by ON DELETE CASCADE.
{% endfor %}
DELETE FROM {{ table }}
WHERE {{ id.sql }} {{ id.operator("=") }} $1::{{ id.bare }}
RETURNING {{ id.as_id }};
