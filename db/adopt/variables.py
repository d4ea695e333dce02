"""The variables of the templates: what their SQL says of a table."""

from itertools import count
from typing import Any

from db.adopt.column import Part, literal
from db.adopt.table import Table
from db.header import quoted

# The first version of PostgreSQL that has NULLS NOT DISTINCT for unique indexes.
NULLS_NOT_DISTINCT = 150_000

# The parameters of list.sql that are no filters.
PAGE = {"after", "limit"}


def variables(table: Table, tables: list[Table]) -> dict[str, Any]:
    """Return the variables of the templates."""
    key, id_ = table.key, table.id
    answered = table.answered
    listed = ", ".join([id_.as_id, *(each.sql for each in answered)])
    names = ["id", *(each.sql for each in answered)]
    arrays = table.version < NULLS_NOT_DISTINCT and not all(part.never_null for part in key)
    expressions = not all(part.is_column for part in key)
    filters = _filters(table)
    # Merge itself changes what refers to another row, and PostgreSQL computes what is generated. A
    # value of type json is not the same when it has been jsonb.
    others = [each for each in table.columns if each.generated or each.bare == "json"]
    not_own = sorted({*_referring(table, tables), *(literal(each.name) for each in others)})
    given_columns = [*(part.column for part in key), *table.attributes]
    created_at = next((each for each in answered if each.name == "created_at"), None)
    if created_at and created_at.bare not in ("timestamptz", "timestamp", "date"):
        created_at = None
    given = {
        **{name: getattr(table, name) for name in dir(table) if not name.startswith("_")},
        "listed": listed,
        "names": ", ".join(names),
        "listed_of": lambda prefix: ", ".join(
            [prefix + id_.as_id, *(prefix + each.sql for each in answered)]
        ),
        "names_of": lambda prefix: ", ".join(f"{prefix}{name}" for name in names),
        "answered": ", ".join(
            [f"id {id_.type}", *(f"{each.sql} {each.type}" for each in answered)]
        ),
        "answered_bare": ", ".join(f"{each.sql} {each.bare}" for each in [id_, *answered]),
        "key_parameters": [part.column.header(optional=part.column.optional) for part in key],
        "parameters": [
            *(part.column.header(optional=part.column.optional) for part in key),
            *(
                each.header(optional=each.optional or each.default is not None)
                for each in table.attributes
            ),
        ],
        "given": [
            *(f"${part.number}::{part.column.bare} AS {part.column.sql}" for part in key),
            *(
                f"{each.or_default(f'${number}::{each.bare}')} AS {each.sql}"
                for number, each in enumerate(table.attributes, len(key) + 1)
            ),
        ],
        "given_columns": given_columns,
        "given_many": [
            *(part.column.sql for part in key),
            *(each.or_default(each.sql) for each in table.attributes),
        ],
        "set_names": ", ".join(each.sql for each in given_columns),
        "free": lambda name: _free(name, table),
        "item": _free("item", table),
        "nth": _free("nth", table),
        "alone": _free("alone", table),
        "sent": [part.sent for part in key],
        "equal": [_equal(part, part.number) for part in key],
        "filters": filters,
        "hashed": len(filters) == len(key),
        "filtered": [part.of_parameter(number) for number, part in enumerate(key, 3)],
        "created_at": created_at
        and created_at.sql + ("" if created_at.bare == "timestamptz" else "::timestamptz"),
        "arrays": arrays,
        "nulls_not_distinct": not arrays and not all(part.never_null for part in key),
        "unique": [_unique(part, arrays) for part in key],
        "constraint": not (table.where or arrays or expressions),
        "stored_columns": [each.sql for each in table.columns if not each.generated]
        if any(each.generated for each in table.columns)
        else [],
        "guard_detail": "Key ({})=({}) already exists.".format(
            ", ".join(part.value for part in key).replace("%", "%%"),
            ", ".join("%s" for _ in key),
        ),
        "guard_values": [
            part.stored("NEW.") if part.expression else f"NEW.{part.column.sql}" for part in key
        ],
        "tag": _tag(table),
        "before": _before(table, not_own),
        "not_own": not_own,
        "has_beside": bool(table.takes or table.references),
        "removal": {
            "type": id_.bare_type,
            "bare": id_.bare,
            "condition": f"{table.table}.{id_.sql} {id_.operator('=')} these_pairs.id",
            "id": f"{table.table}.{id_.as_id}",
        },
        "partition": ", ".join(part.value for part in key),
        "taken": [
            (number, take, column.sql)
            for number, take in enumerate(table.takes, 1)
            for column in take.columns
        ],
        "before_and_after": list(
            zip(table.stored("(taken.content)."), table.stored("(filled.content)."), strict=True)
        ),
        "generated": [each.name for each in table.columns if each.generated],
        # The id differs between copies, and so may a column that is generated from it.
        "not_compared": [each.name for each in table.columns if each.generated or each is id_],
    }
    return {**given, **_parents(table, tables)}


def _before(table: Table, not_own: list[str]) -> str:
    """Return the SQL of what before.sql tells of a row, or "" if nothing refers to the table."""
    if not table.references:
        return ""
    whole = f"pg_catalog.to_jsonb({table.table}.*)"
    without = f" OPERATOR(pg_catalog.-) ARRAY[{', '.join(not_own)}]" if not_own else ""
    return f"({whole}{without})"


def _referring(table: Table, others: list[Table]) -> list[str]:
    """Return, as literals, the columns by which rows of a table refer to rows of others."""
    columns = {
        each.column for other in others for each in other.references if each.oid == table.oid
    }
    return [literal(each.name) for each in table.columns if each.sql in columns]


def _free(name: str, table: Table) -> str:
    """Return a name that no column of the table has."""
    while any(name == column.name for column in table.columns):
        name += "_"
    return name


def _filters(table: Table) -> list[dict[str, str]]:
    """Return a list's filters, and note columns of the key that cannot be one.

    A column is a filter by itself where an index begins with it. The others need the whole key, for
    which there is an index.
    """
    filters: list[dict[str, str]] = []
    for part in table.key:
        column = part.column
        free = column.indexed and not part.expression and len(table.key) > 1
        others = [each.column for each in table.key if each is not part]
        taken = {column.name} & PAGE or (
            {each.name for each in others} & PAGE if not free else set()
        )
        if taken:
            why = "it takes that for its pages"
            if column.name not in taken:  # it needs the other columns, and one of those is taken
                why = f"that needs {' and '.join(sorted(taken))}, which it takes for its pages"
            table.notes.append(f"a list cannot be filtered by {column.name}, for {why}")
            continue
        number = len(filters) + 3
        parameter = part.of_parameter(number)
        needs = "" if free else " and ".join(each.sql for each in others)
        filters.append(
            {
                "header": column.header(optional=True)
                + " for any"
                + (f", needs {needs}" if needs else ""),
                "bare": column.bare,
                "condition": _equal(part, number, null=False)
                if free
                else f"{part.stored()} = {parameter}",
                "equal": _equal(part, number, null=False),
            }
        )
    return filters


def _equal(part: Part, number: int, *, null: bool = True) -> str:
    """Return the condition that a part of the key equals a parameter, in a form for a btree.

    With `null` it also holds where both are NULL.
    """
    if part.expression:
        stored, sent = part.stored(), part.of_parameter(number)
    else:
        stored, sent = part.column.sql, part.column.sent(number)
    equal = f"{stored} OPERATOR(pg_catalog.=) {sent}"
    if part.never_null or not null:
        return equal
    return f"({equal} OR {stored} IS NULL AND {sent} IS NULL)"


def _unique(part: Part, arrays: bool) -> str:
    if arrays and not part.never_null:
        return f"(ARRAY[{part.stored()}])"
    return part.column.sql if part.is_column else f"({part.stored()})"


def _tag(table: Table) -> str:
    """Return dollar quotes for the guard's body that occur in none of the names in it."""
    texts = "".join(
        [*table.stored(), table.where() if table.where else "", table.table, table.id.sql]
    )
    tags = ("$guard$" if not n else f"$guard_{n}$" for n in count())
    return "$$" if "$" not in texts else next(tag for tag in tags if tag not in texts)


def _parents(table: Table, tables: list[Table]) -> dict[str, Any]:
    """Return the template variables of the resources that the key refers to.

    Merging those gives rows of this table other keys, which plan.sql counts in advance.
    """
    parents: list[dict[str, Any]] = []
    kept_key: list[str] = []
    for part in table.key:
        kept = part.value_of(f"{table.table}.")
        for parent in tables:
            if parent is table or not parent.is_referred_to(table, part):
                continue
            again = f"_{len(parents)}" if parent.name in {each["name"] for each in parents} else ""
            alias = quoted(f"{parent.name}{again}_kept")
            partition = [each.value for each in parent.key]
            if has_key := parent.in_key():  # a parent without a key is merged with no other row
                without = f"({' AND '.join(has_key)}) IS NOT TRUE"
                partition.append(f"CASE WHEN {without} THEN {parent.id.sql} END")
            parents.append(
                {
                    "name": parent.name,
                    "alias": alias,
                    "id": parent.id,
                    "table": parent.table,
                    "order": parent.order(f"{parent.table}."),
                    "partition": partition,
                    "column": part.column.sql,
                    "optional": part.column.optional,
                }
            )
            kept = f"{alias}.kept"
            break
        kept_key.append(kept)
    return {"parents": parents, "kept_key": kept_key}
