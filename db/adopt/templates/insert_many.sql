-- The new rows of {{ name }} for the keys that have none: {{ answered }}, copies bigint. One row for each item whose key has none, in their order; where copies is not 1, an item before it has made the row.
{% for column in given_columns %}
-- ${{ loop.index }} {{ column.arrays(optional=column.optional or (column.default is not none and loop.index > key | length)) }}
{% endfor %}
-- ${{ given_columns | length + 1 }} {{ alone }} boolean
{% if attributes | selectattr("default") | list %}
-- Where a parameter with a default is NULL, PostgreSQL evaluates the default of its column.
{% endif %}
-- The end checks each row as in insert.sql. {{ alone }} tells that lock.sql has kept all other writers out since
-- before the snapshot, so that no conflict can be forgotten, however old the transaction is. OFFSET 0 keeps
-- NOT EXISTS from becoming a join, for which another index of the key might be read as a whole.
WITH these_rows AS MATERIALIZED (
    SELECT {{ given_columns | map(attribute="as_collated") | join(", ") }}, {{ item }}
    FROM {{ unnest(given_columns) }}
        WITH ORDINALITY AS these_rows ({{ set_names }}, {{ item }})
),
missing AS MATERIALIZED (
    SELECT {{ set_names }}, {{ item }}, row_number() OVER (PARTITION BY {{ given_in("these_rows.") | join(", ") }} ORDER BY {{ item }}) AS {{ nth }}
    FROM these_rows
    WHERE NOT EXISTS (
        SELECT
        FROM {{ table }}
        WHERE {{ same(stored(table ~ "."), given_in("these_rows."), 14) }}
{% if where %}
          AND {{ where.fenced(table ~ ".") }}
{% endif %}
        OFFSET 0
    )
),
inserted AS (
    INSERT INTO {{ table }} ({{ set_names }})
    SELECT {{ given_many | join(", ") }}
    FROM missing
    WHERE {{ nth }} = 1
    -- Two transactions with the same new keys wait for each other in one order.
    ORDER BY {{ given_in("missing.") | join(", ") }}
{% if where %}
    -- A row outside the condition counts as none, because the next request would not find it.
    RETURNING CASE WHEN {{ where() }} THEN tableoid END AS tableoid, {{ listed }}
{% else %}
    RETURNING tableoid, {{ listed }}
{% endif %}
)
SELECT {{ names_of("inserted.") }}, missing.{{ nth }} AS copies
FROM missing
LEFT JOIN inserted
    ON {{ same(stored("inserted."), given_in("missing."), 7) }}
WHERE CASE
    WHEN inserted.tableoid IS NULL THEN 'the table stored no such row for item ' || missing.{{ item }}::text
    WHEN NOT ${{ given_columns | length + 1 }}::boolean AND clock_timestamp() > transaction_timestamp() + interval '50 milliseconds' THEN 'the insert came too late'
    ELSE 'true'
END::boolean
ORDER BY missing.{{ item }};
