-- The row of {{ name }} with this key, {{ stays }} where several share it, and how many do: {{ answered }}, copies bigint. No row if there is none.
{% for each in key_parameters %}
-- ${{ loop.index }} {{ each }}
{% endfor %}
-- Only {{ name }}_lookup can serve this, so that the predicate lock is one page of it: no other index has
-- the hash, none serves IS NOT DISTINCT FROM, and MATERIALIZED keeps ORDER BY from using the primary key.
{% if where %}
-- CASE keeps indexes of the condition's columns from serving it. {{ name }}_lookup has the same CASE.
{% endif %}
-- The casts to exact types let PostgreSQL choose no operator or function but its own.
WITH same_key AS MATERIALIZED (
    SELECT {{ ([listed] + order_listed(keys=False)) | join(", ") }}{{ ", count(*) OVER () AS copies" if keep.referring }}
    FROM {{ table }}
    WHERE {{ same(stored(), sent, 10) }}
{% if where %}
      AND {{ where.fenced() }}
{% endif %}
)
SELECT {{ names }}, {{ "copies" if keep.referring else "count(*) OVER () AS copies" }}
FROM same_key
ORDER BY {{ order_in("same_key", keys=False, when="copies > 1") }}
LIMIT 1;
