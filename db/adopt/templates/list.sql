-- The rows of {{ name }} after an id, by id, one more than the limit if there are more: {{ answered }}.
-- $1 after {{ id.type }}{{ id.one_of }}, or NULL for the start
-- $2 limit bigint
{% for each in filters %}
-- ${{ loop.index + 2 }} {{ each.header }}
{% endfor %}
{% if hashed %}
-- If a request has the whole key, {{ name }}_lookup serves the condition about the hash
{%- if where %}, with the last one.
-- Without filters any index of the id with the condition before it serves{% endif %}.
{% endif %}
SELECT {{ listed }}
FROM {{ table }}
WHERE ($1::{{ id.bare }} IS NULL OR {{ id.sql }} {{ id.operator(">") }} $1::{{ id.bare }})
{% for each in filters %}
  AND (${{ loop.index + 2 }}::{{ each.bare }} IS NULL OR {{ each.condition }})
{% endfor %}
{% if hashed %}
  AND ({% for each in filters %}{{ "OR " if not loop.first }}${{ loop.index + 2 }}::{{ each.bare }}{{ " IS NULL" if loop.last else " IS NULL " }}{% endfor %}

       OR {{ hash(stored()) }}
          = {{ hash(filtered) }})
{% endif %}
{% if where %}
  AND {{ where() }}
{% if hashed %}
  AND {{ where.fenced() }}
{% endif %}
{% endif %}
ORDER BY {{ id.sql }}
LIMIT $2::bigint + 1;
