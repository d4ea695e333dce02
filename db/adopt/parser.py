"""Lets PostgreSQL parse the expressions of a key, a condition and an order.

They come from the command line, and never go into the files as they are. PostgreSQL builds an index
of them on an empty temporary table with the same columns, and the files get the text that
PostgreSQL then has for them, with its quotes and with schemas. The columns of the temporary table
are renamed before that text is read, so that a column's name in it can be told from everything
else.
"""

import re
from dataclasses import replace
from functools import partial
from secrets import token_hex

import psycopg
from psycopg import errors

from db.adopt.column import TAKEN, Column, Condition, Order, Part, replaced, short
from db.header import KINDS
from db.pipeline import Row
from db.queries import flat
from db.way_out.change import Refused, Session, ask

# In --keep this is how many rows refer to a row, unless the table has a column of this name.
REFERRING = "referring"

# The end of an element of --keep, which is no part of its expression.
DIRECTION = re.compile(r"(\s+(?:ASC|DESC))?(\s+NULLS\s+(?:FIRST|LAST))?\s*\Z", re.IGNORECASE)

# Expressions that are NULL only where their column is.
_STRICT = r"(?:lower|upper|btrim)?\(*{}(?:::text| COLLATE [\w.\"-]+|\))*"


class Parser:
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
