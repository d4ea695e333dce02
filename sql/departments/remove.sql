-- Moves rows of departments into the table merged: id, whole (whether the JSON holds all of the row).
-- $1 ids bigint[], the rows that go
-- $2 kept bigint[], for each of them the row that stays
-- $3 pointed jsonb, by id, the rows that referred to it: {"7": {"table.column": ["1", "2"]}}
-- $4 before text[], for each of them what before.sql returned. What a trigger has changed since is recorded
-- as it was, as the row's own.
-- Their steps are in the order in which they are given, because undo goes back from the last one.
-- ONLY leaves rows of a child table, whose own columns would not be in the JSON.
-- departments.* is the whole row, and departments alone might be a column of that name.
WITH these_pairs AS (
    SELECT id, kept, before, place
    FROM unnest($1::bigint[], $2::bigint[], $4::text[]) WITH ORDINALITY AS these_pairs (id, kept, before, place)
),
removed AS (
    DELETE FROM ONLY departments
    USING these_pairs
    WHERE departments.id OPERATOR(pg_catalog.=) these_pairs.id
    RETURNING
        departments.id,
        these_pairs.kept,
        these_pairs.place,
        these_pairs.before,
        pg_catalog.to_jsonb(departments.*) AS content,
        (departments.*)::text AS row_text
),
moved AS (
    INSERT INTO merged (resource, id, kept, content, pointed, filled)
    SELECT 'departments', id::text, kept::text, content, coalesce($3::jsonb -> id::text, '{}'), (
        SELECT pg_catalog.jsonb_build_object('own'::text, pg_catalog.jsonb_object_agg(was.key, was.value))
        FROM pg_catalog.jsonb_each(before::jsonb) AS was
        WHERE was.value::text IS DISTINCT FROM (content OPERATOR(pg_catalog.->) was.key)::text
        HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0::bigint
    )
    FROM removed
    ORDER BY place
)
SELECT id, row_text = pg_catalog.jsonb_populate_record(NULL::departments, content)::text AS whole
FROM removed;
