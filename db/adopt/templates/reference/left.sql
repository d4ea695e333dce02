-- A row of {{ reference.table }} that still refers to one of these rows, and would be deleted with it: id. No row if there is none.
-- $1 ids {{ id.bare_type }}[]
SELECT {{ reference.as_id() }}
FROM {{ reference.table }}
WHERE {{ reference.column }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[])
LIMIT 1;
