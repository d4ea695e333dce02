-- Locks rows of {{ reference.table }}, so that nobody changes or deletes them until the transaction ends: id.
-- $1 ids text[]
-- It fails with 40001 if one was changed or deleted since the snapshot.
SELECT {{ reference.row(reference.table ~ ".") }}::text AS id
FROM unnest($1::text[]) AS these_rows (id)
INNER JOIN {{ reference.table }} ON {{ reference.row_is("these_rows.id") }}
ORDER BY these_rows.id
FOR SHARE;
