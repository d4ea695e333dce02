-- Puts a row of departments back, with all of its columns, and takes it out of the table merged: kept, pointed, filled (what the row that was kept took over from it), own (what a trigger changed in this row, as it was), changed (the columns that are not as they were).
-- $1 id text
WITH taken AS (
    DELETE FROM merged
    WHERE resource = 'departments'
      AND id = $1::text
    RETURNING kept, content, pointed, filled
),
restored AS (
    INSERT INTO departments OVERRIDING SYSTEM VALUE
    SELECT whole.*
    FROM taken
    CROSS JOIN pg_catalog.jsonb_populate_record(NULL::departments, content) AS whole
    RETURNING pg_catalog.to_jsonb(departments.*) AS restored
)
SELECT
    kept,
    pointed,
    filled,
    (filled OPERATOR(pg_catalog.->) 'own'::text)::text AS own,
    ARRAY(
        SELECT was.key
        FROM jsonb_each(content) AS was
        WHERE was.value IS DISTINCT FROM restored -> was.key
    ) AS changed
FROM taken
LEFT JOIN restored ON TRUE;
