-- Where the rows of departments that share a key differ, those with the most rows first, a row for each key and column: resource, id (of the row that stays), key, copies (how many rows), column_name, ids (of the rows, in the order in which they would stay), values (of the column in these rows).
-- Values are compared as JSON writes them, as in equal.sql: 1.0 and 1.00 differ.
WITH ranked AS (
    SELECT
        id,
        pg_catalog.jsonb_build_object('name', name) AS key,
        count(*) OVER (PARTITION BY name) AS copies,
        pg_catalog.first_value(id) OVER by_key AS kept,
        pg_catalog.row_number() OVER by_key AS place
    FROM departments
    WHERE name IS NOT NULL
    WINDOW by_key AS (PARTITION BY name ORDER BY departments.id)
)
SELECT
    'departments' AS resource,
    ranked.kept AS id,
    ranked.key,
    ranked.copies,
    have.key AS column_name,
    pg_catalog.array_agg(ranked.id::text ORDER BY ranked.place) AS ids,
    pg_catalog.array_agg(have.value OPERATOR(pg_catalog.#>>) '{}'::text[] ORDER BY ranked.place) AS values
FROM ranked
INNER JOIN departments ON departments.id OPERATOR(pg_catalog.=) ranked.id
CROSS JOIN pg_catalog.jsonb_each(pg_catalog.to_jsonb(departments.*)) AS have
WHERE ranked.copies > 1
  AND have.key OPERATOR(pg_catalog.<>) ALL (ARRAY['id'])
GROUP BY ranked.kept, ranked.key, ranked.copies, have.key
HAVING pg_catalog.count(DISTINCT have.value::text) > 1
ORDER BY ranked.copies DESC, ranked.kept, have.key;
