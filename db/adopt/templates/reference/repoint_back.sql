-- Moves rows of {{ reference.table }} back to the one of {{ name }} they referred to, where they still refer to the one that was kept: id, of each.
-- $1 id text
-- $2 kept text
-- $3 ids text[], of the rows to move
UPDATE {{ reference.table }}
SET {{ reference.column }} = $1::text::{{ id.bare }}
WHERE {{ reference.row_is_one_of("$3") }}
  AND {{ reference.column }} {{ id.operator("=") }} $2::text::{{ id.bare }}
RETURNING {{ reference.as_id() }};
