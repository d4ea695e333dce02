-- The new row of {{ name }}: {{ answered }}. No row if the key has one.
{% for each in parameters %}
-- ${{ loop.index }} {{ each }}
{% endfor %}
{% if attributes | selectattr("default") | list %}
-- Where a parameter with a default is NULL, the server evaluates the default of its column.
{% endif %}
-- The insert has no time limit, because these engines keep the locks of all that a transaction has read.
-- BEFORE triggers and the columns' types may change the row. The end checks that it is there with the key
-- that was sent. If not, the cast to boolean fails, and with it the transaction: the error quotes the words.
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
    -- A row outside the condition counts as none, because the next request would not find it.
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
