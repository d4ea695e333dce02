"""A column, and what is made of columns: the parts of a key, a condition, an order."""

from collections.abc import Callable
from dataclasses import dataclass

# The shorter names of types, by those that PostgreSQL itself prints.
SHORT = {
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
}

# Names that no column but the primary key can have, with the reason.
TAKEN = {"id": "the primary key is answered as id", "copies": "a lookup answers how many there are"}


@dataclass
class Column:
    """A column, as sql/adopt/columns.sql describes it."""

    name: str
    sql: str  # the name as it stands in SQL, in quotes if it needs them
    type: str  # the type in a header
    bare: str  # the type in a cast: without length or digits, by which a cast would cut or round
    schema: str  # the schema of the type
    optional: bool  # whether it may be NULL
    default: str | None  # as SQL
    generated: bool
    settable: bool  # whether an INSERT may name it
    collation: str | None  # as SQL, if it is not the type's own
    labels: list[str]  # those of an enum
    is_citext: bool
    primary_key: bool
    indexed: bool  # whether a btree index begins with it
    set_by: list[str]  # the tables whose deletes set it to NULL or to its default
    unserved: str | None  # why no request can have it, or None

    @property
    def bare_type(self) -> str:
        """PostgreSQL's own name of the type, without length or digits, for a header."""
        return next((name for name, short in SHORT.items() if short == self.bare), self.bare)

    @property
    def is_text(self) -> bool:
        """Whether the type is compared by a collation."""
        return self.bare in ("text", "varchar") or self.is_citext

    @property
    def as_id(self) -> str:
        """The column in a list of columns, under the name id."""
        return self.sql if self.sql == "id" else f"{self.sql} AS id"

    def operator(self, name: str) -> str:
        """Return an operator of the type with its schema, which for citext is the extension's."""
        return f"OPERATOR({self.schema if self.is_citext else 'pg_catalog'}.{name})"

    def header(self, *, optional: bool) -> str:
        """Return what a header's line has behind `-- $1 `."""
        return f"{self.sql} {self.type}{self.one_of}{', or NULL' if optional else ''}"

    @property
    def one_of(self) -> str:
        """Return what a header's line says of an enum's labels, or an empty text."""
        return f", one of {', '.join(map(literal, self.labels))}" if self.labels else ""

    def sent(self, number: int) -> str:
        """Return the parameter with this number as SQL, of the column's type and collation."""
        parameter = f"${number}::{self.bare}"
        return f"({parameter} COLLATE {self.collation})" if self.collation else parameter

    def arrays(self, *, optional: bool) -> str:
        """Return what a header's line has for an array of values."""
        return f"{self.sql} {self.bare_type}[]{', or NULL in it' if optional else ''}"

    @property
    def as_collated(self) -> str:
        """The column of an array's values in a list of columns, with the column's collation."""
        return f"{self.sql} COLLATE {self.collation} AS {self.sql}" if self.collation else self.sql

    def or_default(self, value: str) -> str:
        """Return what an insert sets the column to: the value, or its default for NULL."""
        if not self.default:
            return value
        # An assignment casts a default to the column's type. coalesce() does not, so the cast must
        # be in the text.
        is_cast = self.default.endswith((f"::{self.bare}", f"::{self.bare_type}"))
        default = self.default if is_cast else f"({self.default})::{self.bare}"
        return f"coalesce({value}, {default})"


@dataclass
class Part:
    """A part of the key: a column, or an expression of one."""

    column: Column
    expression: Callable[[str], str] | None  # its SQL for a column, or for what stands in its place
    number: int  # the number of its parameter, from 1
    never_null: bool
    is_text: bool
    is_column: bool  # whether rows with equal parts have equal columns

    def stored(self, prefix: str = "") -> str:
        """Return the SQL of this part for a row, cast to an exact type."""
        column = f"{prefix}{self.column.sql}"
        return self.expression(column) if self.expression else f"{column}::{self._exact}"

    @property
    def sent(self) -> str:
        """The SQL of this part for the value that a client has sent."""
        return self.of_parameter(self.number)

    def of_parameter(self, number: int) -> str:
        """Return the SQL of this part for the parameter with this number."""
        parameter = self.column.sent(number)
        if self.expression:
            return self.expression(parameter)
        if self.column.bare == self._exact:
            return parameter
        return f"{parameter}::{self._exact}"

    def of(self, prefix: str) -> str:
        """Return the SQL of this part for a row that has the columns of Table.key_listed()."""
        column = f"{prefix}{self.column.sql}"
        return column if self.expression else f"{column}::{self._exact}"

    def given_in(self, prefix: str) -> str:
        """Return the SQL of this part for a row of the values that a client has sent."""
        column = f"{prefix}{self.column.sql}"
        if self.expression:
            return self.expression(column)
        return column if self.column.bare == self._exact else f"{column}::{self._exact}"

    @property
    def value(self) -> str:
        """The SQL by which rows are grouped into keys."""
        return self.value_of("")

    def value_of(self, prefix: str) -> str:
        """Return the SQL by which rows of a table or an alias are grouped into keys."""
        column = f"{prefix}{self.column.sql}"
        return self.expression(column) if self.expression else column

    @property
    def _exact(self) -> str:
        # varchar has no operators of its own. If others made some, PostgreSQL would choose those
        # before the ones of text.
        return "text" if self.column.bare == "varchar" else self.column.bare


@dataclass
class Condition:
    """The condition of --where. Rows that do not fulfil it are no copies."""

    text: str  # the SQL, with a mark in the place of each column
    columns: dict[str, str]  # the columns as they stand in SQL, by their marks

    def __call__(self, prefix: str = "") -> str:
        """Return the SQL for the columns of a table or an alias."""
        return replaced(self.text, {mark: prefix + sql for mark, sql in self.columns.items()})

    def fenced(self, prefix: str = "") -> str:
        """Return the SQL in a form that only a partial index with the same condition serves."""
        return f"CASE WHEN {self(prefix)} THEN TRUE END"


@dataclass
class Order:
    """The order of --keep. The first row of each key stays."""

    elements: list[str]  # the SQL of each, with a mark in the place of each column
    columns: dict[str, Column]  # by their marks
    referring: str | None  # the mark of how many rows refer to the row, if the order counts them

    def __call__(self, names: dict[str, str], referring: str, id_: str) -> str:
        """Return the SQL for an ORDER BY, which ends with the id.

        `names` has the columns by their names. `referring` counts the rows that refer to the row.
        """
        instead = {mark: names[column.name] for mark, column in self.columns.items()}
        if self.referring:
            instead[self.referring] = referring
        elements = [replaced(element, instead) for element in self.elements]
        return ", ".join([*elements, *([id_] if id_ not in elements else [])])


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'{}'".format(text.replace("'", "''"))


def replaced(text: str, instead: dict[str, str]) -> str:
    """Return a text with each mark replaced by its SQL."""
    for mark, sql in instead.items():
        text = text.replace(mark, sql)
    return text


def short(type_: str) -> str:
    """Return the shorter name of a type, or the name itself if it has none."""
    return SHORT.get(type_, type_)
