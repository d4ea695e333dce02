-- Puts a row of employees back, with all of its columns, and takes it out of the table merged: kept, pointed, filled (what the row that was kept took over from it), changed (the columns that are not as they were).
-- $1 id text
WITH taken AS (
    DELETE FROM merged
    WHERE resource = 'employees'
      AND id = $1::text
    RETURNING kept, content, pointed, filled
),
restored AS (
    INSERT INTO employees OVERRIDING SYSTEM VALUE
    SELECT whole.*
    FROM taken
    CROSS JOIN pg_catalog.jsonb_populate_record(NULL::employees, content) AS whole
    RETURNING pg_catalog.to_jsonb(employees.*) AS restored
)
SELECT
    kept,
    pointed,
    filled,
    ARRAY(
        SELECT was.key
        FROM jsonb_each(content) AS was
        WHERE was.value IS DISTINCT FROM restored -> was.key
    ) AS changed
FROM taken
LEFT JOIN restored ON TRUE;
