{% set lock = "FOR NO KEY UPDATE" if takes else "FOR SHARE" %}
-- Locks rows of {{ name }}, so that nobody changes or deletes them until the transaction ends: id.
-- $1 ids {{ id.bare_type }}[]
-- It fails with 40001 if one was changed or deleted since the snapshot. {{ lock }} lets new rows refer to them.
SELECT {{ id.as_id }}
FROM {{ table }}
WHERE {{ id.sql }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[])
ORDER BY {{ id.sql }}
{{ lock }};
