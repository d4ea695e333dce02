-- Lets the primary key of merged begin with the id. No row.
ALTER TABLE merged
    DROP CONSTRAINT merged_pkey,
    ADD CONSTRAINT merged_pkey PRIMARY KEY (id, resource);
