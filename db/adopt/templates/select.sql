-- The row of {{ name }} with this key, the lowest id where several share it, and how many do: {{ answered }}, copies bigint. No row if there is none.
{% for each in key_parameters %}
-- ${{ loop.index }} {{ each }}
{% endfor %}
-- Exact types leave PostgreSQL no choice of operators and functions but its own, whatever others made.
-- Only {{ name }}_lookup can serve the hash condition: no index serves IS NOT DISTINCT FROM, and
-- MATERIALIZED keeps ORDER BY from choosing the primary key. So the predicate lock is one page.
{% if where %}
-- CASE keeps the condition from indexes of its columns; {{ name }}_lookup has it, too.
{% endif %}
WITH same_key AS MATERIALIZED (
    SELECT {{ listed }}
    FROM {{ table }}
    WHERE {{ hash(stored()) }}
          = {{ hash(sent) }}
{% for part in key %}
      AND {{ part.stored() }} IS NOT DISTINCT FROM {{ part.sent }}
{% endfor %}
{% if where %}
      AND {{ where.fenced() }}
{% endif %}
)
SELECT {{ names }}, count(*) OVER () AS copies
FROM same_key
ORDER BY id
LIMIT 1;
