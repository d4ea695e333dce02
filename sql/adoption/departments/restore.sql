-- Puts one row of departments back as it was, whatever columns it has, and takes it out of merged: kept, pointed.
-- $1 id bigint
WITH taken AS (
    DELETE FROM merged
    WHERE resource = 'departments'
      AND id = $1
    RETURNING kept, content, pointed
),
restored AS (
    INSERT INTO departments OVERRIDING SYSTEM VALUE
    SELECT whole.*
    FROM taken
    CROSS JOIN jsonb_populate_record(NULL::departments, content) AS whole
)
SELECT kept, pointed
FROM taken;
