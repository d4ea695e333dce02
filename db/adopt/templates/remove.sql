-- Moves rows of {{ name }} into the table merged: id, whole (whether the JSON holds all of the row).
-- $1 ids {{ removal.type }}[], the rows that go
-- $2 kept {{ removal.type }}[], for each of them the row that stays
-- $3 pointed jsonb, by id, the rows that referred to it: {"7": {"table.column": ["1", "2"]}}
{% if before %}
-- $4 before text[], for each of them what before.sql returned. What a trigger has changed since is recorded
-- as it was, as the row's own.
{% endif %}
-- Their steps are in the order in which they are given, because undo goes back from the last one.
{% if kind != "p" %}
-- ONLY leaves rows of a child table, whose own columns would not be in the JSON.
{% endif %}
-- {{ table }}.* is the whole row, and {{ table }} alone might be a column of that name.
WITH these_pairs AS (
{% if before %}
    SELECT id, kept, before, place
    FROM unnest($1::{{ removal.bare }}[], $2::{{ removal.bare }}[], $4::text[]) WITH ORDINALITY AS these_pairs (id, kept, before, place)
{% else %}
    SELECT id, kept, place
    FROM unnest($1::{{ removal.bare }}[], $2::{{ removal.bare }}[]) WITH ORDINALITY AS these_pairs (id, kept, place)
{% endif %}
),
removed AS (
    DELETE FROM {{ "ONLY " if kind != "p" }}{{ table }}
    USING these_pairs
    WHERE {{ removal.condition }}
    RETURNING
        {{ removal.id }},
        these_pairs.kept,
        these_pairs.place,
{% if before %}
        these_pairs.before,
{% endif %}
        pg_catalog.to_jsonb({{ table }}.*) AS content,
        ({{ table }}.*)::text AS row_text
),
moved AS (
{% if before %}
    INSERT INTO merged (resource, id, kept, content, pointed, filled)
    SELECT {{ literal(name) }}, id::text, kept::text, content, coalesce($3::jsonb -> id::text, '{}'), (
        SELECT pg_catalog.jsonb_build_object('own'::text, pg_catalog.jsonb_object_agg(was.key, was.value))
        FROM pg_catalog.jsonb_each(before::jsonb) AS was
        WHERE was.value::text IS DISTINCT FROM (content OPERATOR(pg_catalog.->) was.key)::text
        HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0::bigint
    )
{% else %}
    INSERT INTO merged (resource, id, kept, content, pointed)
    SELECT {{ literal(name) }}, id::text, kept::text, content, coalesce($3::jsonb -> id::text, '{}')
{% endif %}
    FROM removed
    ORDER BY place
)
SELECT id, row_text = pg_catalog.jsonb_populate_record(NULL::{{ row_type }}, content)::text AS whole
FROM removed;
