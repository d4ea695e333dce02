-- Rows of {{ name }} before rows that refer to them are pointed elsewhere, which may fire triggers: id, before (the row as JSON{{ ", without what is generated, refers to another row or is of type json" if not_own }}).
-- $1 ids {{ id.bare_type }}[]
SELECT {{ table }}.{{ id.as_id }}, {{ before }}::text AS before
FROM ONLY {{ table }}
WHERE {{ table }}.{{ id.sql }} {{ id.operator("=") }} ANY ($1::{{ id.bare }}[]);
