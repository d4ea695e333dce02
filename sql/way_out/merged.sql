-- Makes the table merged, unless it is there. No row.
-- It has the rows that merge removed: each whole, as JSON, with the id of the row that was kept in its
-- place. "pointed" has the ids of the rows that referred to it, by "table.column". "filled" has what the row
-- that was kept took over from it: the columns of that one before, and after, and those before that a
-- trigger changed "beside". It also has what a trigger changed in the row that went, as its "own".
-- step is their order.
-- Ids are text, because the tables have ids of different types. Indexes begin with them, for by one that
-- began with the resource PostgreSQL would read all rows of a resource where it takes them for few.
CREATE TABLE IF NOT EXISTS merged (
    step bigint GENERATED ALWAYS AS IDENTITY,
    resource text NOT NULL,
    id text NOT NULL,
    kept text NOT NULL,
    content jsonb NOT NULL,
    pointed jsonb NOT NULL,
    merged_at timestamptz NOT NULL DEFAULT now(),
    filled jsonb,
    PRIMARY KEY (id, resource)
);
