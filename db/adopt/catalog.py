"""Reads a table from the catalog."""

from psycopg import errors

from db.adopt.column import TAKEN, Column, Order, Part, short
from db.adopt.parser import Parser
from db.adopt.table import Table
from db.header import KINDS, UNSENT, quoted
from db.pipeline import Row
from db.way_out.change import Refused, Session, ask
from db.way_out.kind import NAMES

# The names of the templates' common table expressions. In their statements such a name does not
# mean a table that is called so, unless the table is written with its schema.
COMMON_TABLES = {
    *("same_key", "first_row", "missing", "inserted", "ranked", "surplus", "removed"),
    *("moved", "taken", "restored", "moving", "staying", "together", "whole", "was", "merged"),
    *("copies", "filled", "gave", "recorded", "given", "unchanged", "had", "takes", "contents"),
    *("going", "have", "there", "beside", "groups", "later", "is_now", "these", "back"),
    *("back_in_merged", "went"),
}

# Names that stand beside the table in one statement. A table that is called so could not be told
# from them, not even by its schema.
BESIDE_TABLES = {
    *("these_keys", "these_pairs", "these_rows", "referring_rows", "new", "old"),
    *("whole", "had", "was", "these"),
}


def read_table(
    connection: Session,
    given: str,
    key: str,
    where: str | None,
    keep: str | None = None,
    name: str | None = None,
) -> Table:
    """Read a table from the catalog, with its key, its condition and the order of its rows.

    The texts are the arguments of the command line. The table is looked up by the connection's own
    search_path. Raises Refused or psycopg.Error.
    """
    found = find(connection, given)
    bare_name = name or found["bare"]
    with connection.transaction(force_rollback=True):
        connection.execute(b"SET LOCAL search_path = pg_catalog, pg_temp")
        columns = columns_of(connection, found["oid"])
        full = f"{found['schema']}.{found['table_name']}"
        id_ = _id(columns, full)
        parser = Parser(connection, full, columns)
        parts = [parser.part(n, text) for n, text in enumerate(parser.split(key), 1)]
        condition = parser.condition(where) if where else None
        order = parser.order(keep) if keep else Order([], {}, None)
    _check_key(parts, id_)
    sql = found["table_name"] if found["visible"] and is_plain(found["bare"]) else full
    return Table(
        name=bare_name,
        oid=found["oid"],
        kind=found["kind"],
        version=found["version"],
        schema=found["schema"],
        full=full,
        table=sql,
        table_line=None if sql == quoted(bare_name) else sql,
        row_type=sql if found["type_visible"] else full,
        columns=columns,
        id=id_,
        key=parts,
        where=condition,
        keep=order,
    )


def is_plain(table: str) -> bool:
    """Tell whether the templates use this name for nothing else, so that it needs no schema."""
    return table not in COMMON_TABLES and not table.endswith("_kept")


def oid_of(connection: Session, given: str) -> int | None:
    """Return the oid of the table with this name, or None if there is none."""
    try:
        oid: int = find(connection, given)["oid"]
    except Refused:
        return None
    return oid


def find(connection: Session, given: str) -> Row:
    """Return the row of adopt/table.sql for a name, read as SQL first and then in quotes."""
    for name in (given, '"{}"'.format(given.replace('"', '""'))):
        try:
            rows = ask(connection, "adopt/table", name)
        except (errors.InvalidName, errors.SyntaxError, errors.FeatureNotSupported):
            continue
        if rows:
            break
    else:
        raise Refused("there is no such table, or the name is not as SQL has it: see \\d in psql")
    (found,) = rows
    if not found["bare"].isprintable() or not found["schema"].isprintable():
        raise Refused("the table's name has characters that cannot be printed")
    if found["bare"] in BESIDE_TABLES:
        raise Refused(f"{given} has a name that means something else in the files: rename it first")
    if found["kind"] not in ("r", "p"):
        raise Refused(f"{given} is {NAMES.get(found['kind'], 'no table')}, and no table")
    return found


def columns_of(connection: Session, oid: int) -> list[Column]:
    """Return the columns of a table. The search_path must be pg_catalog alone."""
    return [_column(row) for row in ask(connection, "adopt/columns", oid)]


def _column(row: Row) -> Column:
    bare = short(row["bare"])
    is_citext = row["type_name"] == "citext"
    labels = row["labels"] if row["category"] == "e" else []
    made = row["default_value"] or row["identity"]  # PostgreSQL makes it; no request must send it
    unserved = None
    if not all(text.isprintable() for text in (row["name"], row["type"], *labels)):
        unserved = "its name, type or labels have characters that cannot be printed"
    elif not (is_citext or labels or bare in KINDS):
        unserved = f"its type, {row['type']}, has no form in a request"
    elif UNSENT.search(row["name"]) and not (row["primary_key"] and made):
        unserved = "no field of a request can be called so"
    elif row["name"] in TAKEN and not row["primary_key"]:
        unserved = TAKEN[row["name"]]
    return Column(
        name=row["name"],
        sql=row["quoted"],
        type=row["type"],
        bare=bare,
        schema=row["type_schema"],
        optional=not row["not_null"],
        default=None if row["generated"] else row["default_value"],
        generated=row["generated"],
        settable=not (row["generated"] or row["identity"]),
        collation=row["collation"],
        labels=labels,
        is_citext=is_citext,
        primary_key=row["primary_key"],
        indexed=row["indexed"],
        set_by=row["set_by"],
        unserved=unserved,
    )


def _id(columns: list[Column], table: str) -> Column:
    for column in columns:
        if column.primary_key:
            if column.unserved:
                raise Refused(f"the primary key {column.name} cannot be an id: {column.unserved}")
            return column
    raise Refused(f"{table} has no primary key of one column, and so no id")


def _check_key(parts: list[Part], id_: Column) -> None:
    names = [part.column.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"two parts of the key are made of {name}")
    for column in (part.column for part in parts):
        if column is id_:
            raise Refused(
                f"{column.name} is the primary key: each of its values has one row already"
            )
        if column.unserved:
            raise Refused(f"{column.name} cannot be in a key: {column.unserved}")
        if not column.settable:
            raise Refused(
                f"{column.name} is generated, so no request can set it: give what it is made of"
            )
