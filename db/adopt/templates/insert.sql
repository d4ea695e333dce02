-- The new row of {{ name }}: {{ answered }}. No row if the key has one, or if the transaction is too old to insert.
{% for each in parameters %}
-- ${{ loop.index }} {{ each }}
{% endfor %}
{% if attributes | selectattr("default") | list %}
-- Where a parameter with a default is NULL, PostgreSQL evaluates the default of its column.
{% endif %}
-- An insert must come within 50 ms of its transaction's begin. PostgreSQL sees a conflict with a committed
-- serializable transaction only while it remembers that one, by default for the next 1,360 transactions.
-- For 50 ms that covers 27,000 transactions a second.
-- BEFORE triggers and the columns' types may change the row. The end checks that it is there, in time, with
-- the key that was sent and with the same hash, which a column's own collation may change. If not, the cast
-- to boolean fails, and with it the transaction: the error quotes the words, by which the service knows why.
WITH missing AS MATERIALIZED (
    SELECT {{ given | join(", ") }}
    WHERE NOT EXISTS (
        SELECT
        FROM {{ table }}
        WHERE {{ same(stored(), sent, 14) }}
{% if where %}
          AND {{ where.fenced() }}
{% endif %}
    )
      AND clock_timestamp() < transaction_timestamp() + interval '50 milliseconds'
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
{% for part in key if part.is_text %}
    WHEN {{ hash([part.stored("inserted.")]) }}
         <> {{ hash([part.sent]) }} THEN {{ literal("the table would not find this " ~ part.column.name) }}
{% endfor %}
    WHEN clock_timestamp() > transaction_timestamp() + interval '50 milliseconds' THEN 'the insert came too late'
    ELSE 'true'
END::boolean;
