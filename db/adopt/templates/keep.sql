-- Keeps rows of {{ name }} as they are until the transaction ends: id, of each.
-- $1 ids {{ id.bare_type }}[]
-- Fails with 40001 where one was changed or deleted since the snapshot. SHARE lets others refer to it.
SELECT {{ id.as_id }}
FROM {{ table }}
WHERE {{ id.sql }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[])
ORDER BY {{ id.sql }}
FOR SHARE;
