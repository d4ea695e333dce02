-- Makes the table merged, unless it is there. No row.
-- It has the rows that merge removed: whole, as JSON, with the id of the row kept in the place of each,
-- and the ids of the rows, by "table.column", that pointed at it and now point at that one. The steps
-- are in order. Ids are text, for the tables that they come from have them in types of their own.
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
