"""What PostgreSQL says of a table, and how it understands a key's expressions.

A key's expressions and the condition come from the command line. PostgreSQL parses them, as an
index of an empty temporary table that is like the one adopted, and what goes into the files is what
it says that it has understood, with its own quotes and with schemas. Columns have names of our own
there, so that they can be told from all else in that text.
"""

import re
from dataclasses import replace
from functools import partial
from secrets import token_hex

import psycopg
from psycopg import errors

from db.adopt.table import Column, Condition, Part, Reference, Table, replaced, short
from db.connection import Row
from db.header import KINDS, UNSENT, quoted
from db.queries import flat
from db.way_out.change import Connection, Refused, ask
from db.way_out.kind import NAMES

# What a column cannot be called: the answer has an id of its own, and a lookup's the copies.
TAKEN = {"id": "the primary key is answered as id", "copies": "a lookup answers how many there are"}

# Names in the templates that come before a table of the same name, unless that has its schema.
COMMON_TABLES = {
    *("same_key", "missing", "inserted", "ranked", "surplus", "removed"),
    *("moved", "taken", "restored", "moving", "staying", "together", "whole", "was", "merged"),
}

# And these stand beside it in one statement, where a schema does not tell one from the other.
BESIDE_TABLES = {"these_keys", "these_pairs", "these_rows", "new", "old"}

# Expressions that are NULL for no value but NULL.
_STRICT = r"(?:lower|upper|btrim)\({}(?:::text)?\)"


def read_table(
    connection: Connection, given: str, key: str, where: str | None, name: str | None = None
) -> Table:
    """Read a table, and its key and condition, from the catalog.

    The connection's search_path is the caller's own. Raises Refused or psycopg.Error.
    """
    found = _found(connection, given)
    bare_name = name or found["bare"]
    with connection.transaction(force_rollback=True):
        connection.execute(b"SET LOCAL search_path = pg_catalog, pg_temp")
        columns = [_column(row) for row in ask(connection, "adopt/columns", found["oid"])]
        full = f"{found['schema']}.{found['table_name']}"
        id_ = _id(columns, full)
        understood = Understood(connection, full, columns)
        parts = [understood.part(n, text) for n, text in enumerate(understood.split(key), 1)]
        condition = understood.condition(where) if where else None
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
    )


def is_plain(table: str) -> bool:
    """Tell whether nothing in the templates has this name, so that it needs no schema."""
    return table not in COMMON_TABLES and not table.endswith("_kept")


def oid_of(connection: Connection, given: str) -> int | None:
    """Return which table has this name, or None if none has."""
    try:
        oid: int = _found(connection, given)["oid"]
    except Refused:
        return None
    return oid


def _found(connection: Connection, given: str) -> Row:
    """Return the table of this name, in capitals where it is stored so."""
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


def _column(row: Row) -> Column:
    bare = short(row["bare"])
    is_citext = row["type_name"] == "citext"
    labels = row["labels"] if row["category"] == "e" else []
    made = row["default_value"] or row["identity"]  # so that no request needs to send it
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


class Understood:
    """A temporary table like another one, by which PostgreSQL understands expressions of it."""

    def __init__(self, connection: Connection, table: str, columns: list[Column]) -> None:
        """Make it, in a transaction that ends without it."""
        self.connection = connection
        nonce = f"onerow_{token_hex(8)}"
        self.nonce = nonce
        self.table = f"pg_temp.{nonce}"
        self.marks = {f"{nonce}_{n}_": column for n, column in enumerate(columns, 1)}
        self._run(f"CREATE TEMPORARY TABLE {nonce} (LIKE {table})")

    def split(self, texts: str) -> list[str]:
        """Return the expressions of a list with commas: each is the shortest one that is one."""
        found: list[str] = []
        begun = ""
        for piece in texts.split(","):
            begun = f"{begun},{piece}" if begun else piece
            try:
                self._prepare(begun)
            except errors.SyntaxError:
                continue
            except psycopg.Error as error:
                raise self._refusal(begun, error) from None
            found.append(begun.strip())
            begun = ""
        return [*found, begun] if begun else found

    def part(self, number: int, text: str) -> Part:
        """Return an expression of one column, or a column. Raises Refused."""
        try:
            bare, is_citext = self._type(text)
            expression = self._deparsed(f"(({_own_line(text)}))", None)["expression"]
        except psycopg.Error as error:
            raise self._refusal(text, error) from None
        mark, column = self._one_column(expression, text)
        plain = expression.strip("()") == mark
        if is_citext:  # as citext compares, without its operators, which others may have overloaded
            lowered = self.part(number, f"lower(({_own_line(text)})::text)")
            return replace(lowered, is_column=plain)
        if not plain and bare == "varchar":
            return self.part(number, f"({_own_line(text)})::text")
        if not plain and bare not in KINDS:
            raise Refused(f"{text} is of a type that cannot be in a key: {bare}")
        strict = re.fullmatch(_STRICT.format(mark), expression)
        return Part(
            column=column,
            expression=None if plain else partial(_put, expression, mark),
            number=number,
            never_null=not column.optional and (plain or strict is not None),
            is_text=column.is_text if plain else bare == "text",
            is_column=plain,
        )

    def condition(self, text: str) -> Condition:
        """Return a condition of the table's columns. Raises Refused."""
        try:
            self._prepare(text)
            # An index needs a column of a type that it can be of, and some type has none.
            condition = self._deparsed("(1)", text)["condition"] or ""
        except psycopg.Error as error:
            raise self._refusal(text, error) from None
        there = {mark: column.sql for mark, column in self.marks.items() if mark in condition}
        if not there or self.nonce in replaced(condition, dict.fromkeys(there, "")):
            raise Refused(f"{text} is no condition of the table's columns")
        simple = re.fullmatch(r"(?:NOT )?\w+(?: IS (?:NOT )?NULL)?", condition)
        return Condition(condition if simple else f"({condition})", there)

    def _one_column(self, expression: str, text: str) -> tuple[str, Column]:
        there = [mark for mark in self.marks if mark in expression]
        if len(there) != 1 or self.nonce in expression.replace(there[0], ""):
            raise Refused(f"{text} must be made of one column, which is what a request sends")
        return there[0], self.marks[there[0]]

    def _type(self, text: str) -> tuple[str, bool]:
        """Return its type, and whether it is citext."""
        described = self._prepare(text)
        if described.nfields != 1:
            raise Refused(f"{text} is no single expression")
        (type_,) = ask(self.connection, "adopt/type", described.ftype(0))
        bare = short(type_["bare"])
        return bare, type_["type_name"] == "citext"

    def _prepare(self, text: str) -> psycopg.pq.abc.PGresult:
        """Have it parsed outside of all parentheses, so that its own must be balanced.

        An expression that is balanced here cannot leave the parentheses of CREATE INDEX.
        """
        query = f"SELECT {_own_line(text)} FROM ONLY {self.table}"
        pgconn = self.connection.pgconn
        with self.connection.transaction():
            prepared = pgconn.prepare(b"", query.encode())
            if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(prepared)
            return pgconn.describe_prepared(b"")

    def _refusal(self, text: str, error: psycopg.Error) -> Refused:
        said = f"PostgreSQL does not take {text}: {error.diag.message_primary}"
        if isinstance(error, errors.UndefinedFunction | errors.UndefinedObject):
            said += " (what is not PostgreSQL's own needs its schema)"
        return Refused(said)

    def _deparsed(self, element: str, condition: str | None) -> Row:
        """Return what PostgreSQL makes of them, as an index, which must be immutable."""
        where = f" WHERE ({_own_line(condition)})" if condition else ""
        with self.connection.transaction(force_rollback=True):
            self._run(f"CREATE INDEX {self.nonce}_index ON {self.table} ({element}){where}")
            for mark, column in self.marks.items():
                self._run(f"ALTER TABLE {self.table} RENAME {column.sql} TO {mark}")
            (said,) = ask(self.connection, "adopt/expression", f"pg_temp.{self.nonce}_index")
            # No line of theirs can be taken for a comment of the files.
            return {name: text and flat(text) for name, text in said.items()}

    def _run(self, statement: str) -> None:
        # Prepared, so that it can be one statement only.
        self.connection.execute(statement.encode(), prepare=True)


def _own_line(text: str) -> str:
    """Return it so that a comment at its end ends with it."""
    return f"\n{text}\n"


def _put(expression: str, mark: str, column: str) -> str:
    return replaced(expression, {mark: column})


def read_references(connection: Connection, table: Table, known: list[Table]) -> None:
    """Add the foreign keys that refer to it; `known` has the tables of resources."""
    with connection.transaction(force_rollback=True):
        connection.execute(b"SET LOCAL search_path = pg_catalog, pg_temp")
        for row in ask(connection, "adopt/references", table.oid):
            reference = _reference(connection, row, table, known)
            if isinstance(reference, str):
                called = ", ".join(row["columns"])
                table.notes.append(f"{row['bare']}.{called} refers to it, and {reference}")
            else:
                table.references.append(reference)


def _reference(
    connection: Connection, row: Row, table: Table, known: list[Table]
) -> Reference | str:
    """Return it, or why merge cannot take care of it."""
    if len(row["columns"]) > 1:
        return "merge refuses a foreign key of several columns"
    if row["refers_to"] != [table.id.name]:
        return f"merge refuses one that does not refer to {table.id.name}"
    if not row["key"]:
        return "merge refuses it, for without a primary key its rows cannot be told apart"
    if served := [each.table for each in known if each.oid == row["oid"]]:
        sql = served[0]
    elif table.table_is_bare and row["schema"] == table.schema and is_plain(row["bare"]):
        sql = row["table_name"]
    else:
        sql = f"{row['schema']}.{row['table_name']}"
    columns = {
        each.name: each for each in map(_column, ask(connection, "adopt/columns", row["oid"]))
    }
    (column,) = row["columns"]
    folder = f"{sql}.{columns[column].sql}"
    # 255 bytes is what a file system takes.
    if not folder.isprintable() or "/" in folder or len(folder.encode()) > 255:
        return "no folder can have its name, so that merge refuses it"
    key = [columns[name] for name in row["key"]]
    return Reference(
        oid=row["oid"],
        table=sql,
        column=columns[column].sql,
        folder=folder,
        cascades=row["cascades"],
        key=[each.sql for each in key],
        key_column=key[0] if len(key) == 1 and not key[0].unserved else None,
    )
