-- The new row of {{ name }}: {{ answered }}. No row if the key has one.
{% for each in parameters %}
-- ${{ loop.index }} {{ each }}
{% endfor %}
{% if attributes | selectattr("default") | list %}
-- Where a parameter with a default is NULL, the server evaluates the default of its column.
{% endif %}
-- Engines that keep the locks of what a transaction has read need no limit to its age.
-- The end fails, and so the transaction, with what it says as an invalid boolean: after BEFORE triggers and
-- the columns' types have had their way, the row must be there with the key that was sent.
WITH missing AS MATERIALIZED (
    SELECT {{ given | join(", ") }}
    WHERE NOT EXISTS (
        SELECT
        FROM {{ table }}
{% for condition in equal %}
        {{ "WHERE" if loop.first else "  AND" }} {{ condition }}
{% endfor %}
    )
),
inserted AS (
    INSERT INTO {{ table }} ({{ set_names }})
    SELECT {{ set_names }}
    FROM missing
{% if where %}
    -- A row outside the condition counts as none: the next request would make one more.
    RETURNING CASE WHEN {{ where() }} THEN tableoid END AS tableoid, {{ listed }}
{% else %}
    RETURNING tableoid, {{ listed }}
{% endif %}
)
SELECT {{ names_of("inserted.") }}
FROM missing
LEFT JOIN inserted ON TRUE
WHERE CASE
    WHEN inserted.tableoid IS NULL THEN 'the table kept no row'
{% for part in key %}
    WHEN {{ part.stored("inserted.") }} IS DISTINCT FROM {{ part.sent }} THEN {{ literal("the table stored another " ~ part.column.name) }}
{% endfor %}
    ELSE 'true'
END::boolean;
