-- Points rows of {{ reference.table }} at the rows of {{ name }} that stay, instead of those that go: id (of a row that goes), moved (the rows that referred to it).
-- $1 ids {{ id.bare_type }}[], the rows that go
-- $2 kept {{ id.bare_type }}[], for each of them the row that stays
WITH these_pairs AS (
    SELECT id, kept
    FROM unnest($1::{{ id.bare }}[], $2::{{ id.bare }}[]) AS these_pairs (id, kept)
),
moved AS (
    UPDATE {{ reference.table }}
    SET {{ reference.column }} = these_pairs.kept
    FROM these_pairs
    WHERE {{ reference.table }}.{{ reference.column }} {{ id.operator("=") }} these_pairs.id
    RETURNING {{ reference.as_id(reference.table ~ ".") }}, these_pairs.id AS was
)
SELECT was AS id, pg_catalog.array_agg(id::text ORDER BY id) AS moved
FROM moved
GROUP BY was;
