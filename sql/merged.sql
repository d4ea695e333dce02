-- Makes the table of the rows that merge removed. No row.
-- Each is whole, as JSON, with the id of the row kept in its place, and the ids of the rows, by
-- "table.column", that pointed at it and now point at that one. The steps are in order.
CREATE TABLE IF NOT EXISTS merged (
    step bigint GENERATED ALWAYS AS IDENTITY,
    resource text NOT NULL,
    id text NOT NULL,
    kept text NOT NULL,
    content jsonb NOT NULL,
    pointed jsonb NOT NULL,
    merged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (resource, id)
);
