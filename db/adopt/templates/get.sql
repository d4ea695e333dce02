-- The row of {{ name }} with this id: {{ answered }}. No row if there is none.
{% if table_line %}
-- table {{ table_line }}
{% endif %}
-- $1 id {{ id.type }}{{ id.one_of }}
SELECT {{ listed }}
FROM {{ table }}
WHERE {{ id.sql }} {{ id.operator("=") }} $1::{{ id.bare }};
