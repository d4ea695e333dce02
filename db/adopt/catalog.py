"""Reads a table from the catalog, and lets PostgreSQL parse the expressions of its key.

The expressions and the condition come from the command line. They never go into the files as they
are. PostgreSQL builds an index of them on an empty temporary table with the same columns, and the
files get the text that PostgreSQL then has for them, with its quotes and with schemas. The columns
of the temporary table are renamed before that text is read, so that a column's name in it can be
told from everything else.
"""

import re
from dataclasses import replace
from functools import partial
from secrets import token_hex

import psycopg
from psycopg import errors

from db.adopt.table import Column, Condition, Order, Part, Table, replaced, short
from db.header import KINDS, UNSENT, quoted
from db.pipeline import Row
from db.queries import flat
from db.way_out.change import Refused, Session, ask
from db.way_out.kind import NAMES

# Names that no column but the primary key can have, with the reason.
TAKEN = {"id": "the primary key is answered as id", "copies": "a lookup answers how many there are"}

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

# In --keep this is how many rows refer to a row, unless the table has a column of this name.
REFERRING = "referring"

# The end of an element of --keep, which is no part of its expression.
DIRECTION = re.compile(r"(\s+(?:ASC|DESC))?(\s+NULLS\s+(?:FIRST|LAST))?\s*\Z", re.IGNORECASE)

# Expressions that are NULL only where their column is.
_STRICT = r"(?:lower|upper|btrim)?\(*{}(?:::text| COLLATE [\w.\"-]+|\))*"


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
        understood = Understood(connection, full, columns)
        parts = [understood.part(n, text) for n, text in enumerate(understood.split(key), 1)]
        condition = understood.condition(where) if where else None
        order = understood.order(keep) if keep else Order([], {}, None)
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


class Understood:
    """An empty temporary table with the columns of another, on which PostgreSQL parses texts."""

    def __init__(self, connection: Session, table: str, columns: list[Column]) -> None:
        """Make the temporary table, in a transaction that the caller rolls back."""
        self.connection = connection
        nonce = f"onerow_{token_hex(8)}"
        self.nonce = nonce
        self.table = f"pg_temp.{nonce}"
        self.columns = {f"{nonce}_{n}_": column for n, column in enumerate(columns, 1)}
        self.marks = {mark: column.sql for mark, column in self.columns.items()}
        self._run(f"CREATE TEMPORARY TABLE {nonce} (LIKE {table})")

    def split(self, texts: str, before: str = "") -> list[str]:
        """Return the expressions of a list with commas, each the shortest piece that parses.

        `before` stands in a statement before each of them, as ORDER BY does.
        """
        found: list[str] = []
        begun = ""
        for piece in texts.split(","):
            begun = f"{begun},{piece}" if begun else piece
            try:
                self._prepare(begun, before)
            except errors.SyntaxError:
                continue
            except psycopg.Error as error:
                raise self._refusal(begun, error) from None
            found.append(begun.strip())
            begun = ""
        return [*found, begun] if begun else found

    def part(self, number: int, text: str) -> Part:
        """Return the part of the key that a text means. Raises Refused."""
        try:
            bare, is_citext = self._type(text)
            deparsed = self._deparsed(f"(({_own_line(text)}))", None)
        except psycopg.Error as error:
            raise self._refusal(text, error) from None
        expression, collation = deparsed["expression"], deparsed["collation"]
        mark, column = self._one_column(expression, text)
        plain = not collation and expression.strip("()") == mark
        if is_citext:
            # citext compares in lower case, which it takes from the database's collation, whatever
            # the column's own is. lower() does the same without the operators of the extension,
            # beside which other roles may have made some of their own.
            as_text = f'({_own_line(text)})::text COLLATE pg_catalog."default"'
            lowered = self.part(number, f"lower({as_text})")
            return replace(lowered, is_column=plain)
        if not plain and bare == "varchar":
            return self.part(number, f"({_own_line(text)})::text")
        if not plain and bare not in KINDS:
            raise Refused(f"{text} is of a type that cannot be in a key: {bare}")
        strict = re.fullmatch(_STRICT.format(mark), expression)
        if collation:
            expression = f"({expression} COLLATE {collation})"
        return Part(
            column=column,
            expression=None if plain else partial(_put, expression, mark),
            number=number,
            never_null=not column.optional and strict is not None,
            is_text=column.is_text if plain else bare == "text",
            is_column=plain,
        )

    def condition(self, text: str) -> Condition:
        """Return the condition that a text means. Raises Refused."""
        try:
            self._prepare(text)
            # The index is of a constant, because the columns may be of types that no index takes.
            condition = self._deparsed("(1)", text)["condition"] or ""
        except psycopg.Error as error:
            raise self._refusal(text, error) from None
        there = {mark: self.marks[mark] for mark in self._marks_in(condition)}
        if not there:
            raise Refused(f"{text} is no condition of the table's columns")
        simple = re.fullmatch(r"(?:NOT )?\w+(?: IS (?:NOT )?NULL)?", condition)
        return Condition(condition if simple else f"({condition})", there)

    def order(self, text: str) -> Order:
        """Return the order that a text means. Raises Refused."""
        if "--" in text or "/*" in text:
            raise Refused(f"{text} may not have a comment in it")
        if REFERRING not in self.marks.values():
            self._run(f"ALTER TABLE {self.table} ADD {REFERRING} bigint")
            self.marks[f"{self.nonce}_0_"] = REFERRING
        elements = []
        for element in self.split(text, "ORDER BY"):
            end = DIRECTION.search(element)
            assert end is not None  # it may be empty
            expression = element[: end.start()]
            try:
                # An index takes only what is immutable, so the same row stays for everyone, always.
                deparsed = self._deparsed(f"(({_own_line(expression)}))", None)
            except psycopg.Error as error:
                raise self._refusal(expression, error) from None
            there = self._marks_in(deparsed["expression"])
            if not there:
                raise Refused(f"{element} is no order of the table's columns")
            plain = deparsed["expression"].strip("()")
            words = [plain if plain in there else deparsed["expression"]]
            if deparsed["collation"]:
                words += ["COLLATE", deparsed["collation"]]
            elements.append(" ".join([*words, *end[0].upper().split()]))
        used = [mark for mark in self.marks if any(mark in element for element in elements)]
        columns = {mark: self.columns[mark] for mark in used if mark in self.columns}
        for column in columns.values():
            if column.name in TAKEN and not column.primary_key:
                raise Refused(f"{column.name} cannot be in --keep: {TAKEN[column.name]}")
        counts = next((mark for mark in used if mark not in self.columns), None)
        return Order(elements, columns, counts)

    def _one_column(self, expression: str, text: str) -> tuple[str, Column]:
        there = self._marks_in(expression)
        if len(there) != 1:
            raise Refused(f"{text} must be made of one column, which is what a request sends")
        return there[0], self.columns[there[0]]

    def _marks_in(self, deparsed: str) -> list[str]:
        """Return the marks of the columns in a text, none if it names the whole table, too."""
        there = [mark for mark in self.marks if mark in deparsed]
        return [] if self.nonce in replaced(deparsed, dict.fromkeys(there, "")) else there

    def _type(self, text: str) -> tuple[str, bool]:
        """Return the type of an expression, and whether it is citext."""
        described = self._prepare(text)
        if described.nfields != 1:
            raise Refused(f"{text} is no single expression")
        (type_,) = ask(self.connection, "adopt/type", described.ftype(0))
        bare = short(type_["bare"])
        return bare, type_["type_name"] == "citext"

    def _prepare(self, text: str, before: str = "") -> psycopg.pq.abc.PGresult:
        """Prepare a SELECT of a text, outside of all parentheses, and return its description.

        PostgreSQL takes it only if the text's own parentheses are balanced. So the text cannot
        close the parentheses that CREATE INDEX has around it. Raises psycopg.Error.
        """
        if before:
            query = f"SELECT FROM ONLY {self.table} {before} {_own_line(text)}"
        else:
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
        """Return what PostgreSQL has understood of an index's element and condition.

        PostgreSQL builds an index of them, and so refuses what is not immutable.
        """
        where = f" WHERE ({_own_line(condition)})" if condition else ""
        with self.connection.transaction(force_rollback=True):
            self._run(f"CREATE INDEX {self.nonce}_index ON {self.table} ({element}){where}")
            for mark, sql in self.marks.items():
                self._run(f"ALTER TABLE {self.table} RENAME {sql} TO {mark}")
            (said,) = ask(self.connection, "adopt/expression", f"pg_temp.{self.nonce}_index")
            # Put each on one line, so that none of it can be taken for a comment line of the files.
            return {name: text and flat(text) for name, text in said.items()}

    def _run(self, statement: str) -> None:
        # Prepare it, because PostgreSQL prepares only a single statement.
        self.connection.execute(statement.encode(), prepare=True)


def _own_line(text: str) -> str:
    """Return a text with line ends around it, so that a comment in it ends before what follows."""
    return f"\n{text}\n"


def _put(expression: str, mark: str, column: str) -> str:
    return replaced(expression, {mark: column})
