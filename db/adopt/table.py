"""A table and its key, as the templates of a resource's files speak of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

# PostgreSQL's own names for types that have a shorter one.
SHORT = {
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
}


@dataclass
class Column:
    """A column, by what sql/adopt/columns.sql says of it."""

    name: str
    sql: str  # the name as SQL has it
    type: str  # as a header has it
    bare: str  # the same without length or digits, which a cast would cut or round by
    schema: str  # of the type
    optional: bool  # may be NULL
    default: str | None
    generated: bool
    settable: bool
    collation: str | None
    labels: list[str]
    is_citext: bool
    primary_key: bool
    indexed: bool
    set_by: list[str]  # the tables by which a delete of a row sets it, to NULL or its default
    unserved: str | None  # why no request can have it

    @property
    def bare_type(self) -> str:
        """The type's own name, as a header has it."""
        return next((name for name, short in SHORT.items() if short == self.bare), self.bare)

    @property
    def is_text(self) -> bool:
        """Whether a collation has a say in what it is equal to."""
        return self.bare in ("text", "varchar") or self.is_citext

    @property
    def as_id(self) -> str:
        """The primary key in a list of columns."""
        return self.sql if self.sql == "id" else f"{self.sql} AS id"

    def operator(self, name: str) -> str:
        """Return an operator of this type's: citext, which is an extension, brings its own."""
        return f"OPERATOR({self.schema if self.is_citext else 'pg_catalog'}.{name})"

    def header(self, *, optional: bool) -> str:
        """Return what follows `-- $1 `."""
        return f"{self.sql} {self.type}{self.one_of}{', or NULL' if optional else ''}"

    @property
    def one_of(self) -> str:
        """Return what a header says of an enum's labels."""
        return f", one of {', '.join(map(literal, self.labels))}" if self.labels else ""

    def sent(self, number: int) -> str:
        """Return the parameter, of the column's type and collation."""
        parameter = f"${number}::{self.bare}"
        return f"({parameter} COLLATE {self.collation})" if self.collation else parameter

    def given(self, number: int) -> str:
        """Return what the insert sets it to: where the parameter is NULL, its default."""
        value = f"${number}::{self.bare}"
        if not self.default:
            return value
        # The catalog does not tell the cast of an assignment, which only PostgreSQL knows to add.
        is_cast = self.default.endswith((f"::{self.bare}", f"::{self.bare_type}"))
        default = self.default if is_cast else f"({self.default})::{self.bare}"
        return f"coalesce({value}, {default})"


@dataclass
class Part:
    """A part of the key: a column, or an expression of one."""

    column: Column
    expression: Callable[[str], str] | None  # of the column, or of what stands for it
    number: int  # of its parameter
    never_null: bool
    is_text: bool
    is_column: bool  # it is equal where the column itself is

    def stored(self, prefix: str = "") -> str:
        """Return the SQL of this part for a row, cast to one type."""
        column = f"{prefix}{self.column.sql}"
        return self.expression(column) if self.expression else f"{column}::{self._exact}"

    @property
    def sent(self) -> str:
        """The SQL of this part for what a client has sent."""
        return self.of_parameter(self.number)

    def of_parameter(self, number: int) -> str:
        """Return the SQL of this part for a parameter."""
        parameter = self.column.sent(number)
        if self.expression:
            return self.expression(parameter)
        if self.column.bare == self._exact:
            return parameter
        return f"{parameter}::{self._exact}"

    def of(self, prefix: str) -> str:
        """Return the SQL of this part for a table expression that has key_listed()."""
        column = f"{prefix}{self.column.sql}"
        return column if self.expression else f"{column}::{self._exact}"

    @property
    def value(self) -> str:
        """What rows are grouped by."""
        return self.value_of("")

    def value_of(self, prefix: str) -> str:
        """Return what rows of a table or an alias are grouped by."""
        column = f"{prefix}{self.column.sql}"
        return self.expression(column) if self.expression else column

    @property
    def _exact(self) -> str:
        # varchar has no operator of its own: others could make one, and it would fit better.
        return "text" if self.column.bare == "varchar" else self.column.bare


@dataclass
class Reference:
    """A foreign key that refers to the table."""

    table: str
    column: str
    folder: str
    cascades: bool
    key: list[str]  # of its table
    key_column: Column | None  # if that is one alone, of a type that is served
    oid: int

    def row(self, prefix: str = "") -> str:
        """Return what tells its rows from each other."""
        columns = [f"{prefix}{column}" for column in self.key]
        if len(columns) == 1:
            return columns[0]
        return f"pg_catalog.jsonb_build_array({', '.join(columns)})"

    def as_id(self, prefix: str = "") -> str:
        """Return it in a list of columns."""
        row = self.row(prefix)
        return row if self.key == ["id"] else f"{row} AS id"

    def row_is_one_of(self, parameter: str) -> str:
        """Return the condition that a row is one of these, whose ids are text."""
        if column := self.key_column:
            return f"{column.sql} {column.operator('=')} ANY ({parameter}::text[]::{column.bare}[])"
        return f"{self.row()}::text = ANY ({parameter}::text[])"


@dataclass
class Condition:
    """The condition of --where: rows outside it are no copies."""

    text: str
    columns: dict[str, str]  # what stands for each in the text, and its name as SQL has it

    def __call__(self, prefix: str = "") -> str:
        """Return it for the columns of a table or an alias."""
        return replaced(self.text, {mark: prefix + sql for mark, sql in self.columns.items()})

    def fenced(self, prefix: str = "") -> str:
        """Return it so that no index of its columns can serve it, but for one that is partial."""
        return f"CASE WHEN {self(prefix)} THEN TRUE END"


@dataclass
class Table:
    """A table and its key, as the files of a resource need them."""

    name: str  # of the resource
    oid: int
    kind: str
    version: int  # of the server
    schema: str
    full: str  # its name with the schema
    table: str  # as SQL has it, with a schema where it needs one
    table_line: str | None  # where a header must say so
    row_type: str  # which needs a schema where another type has the table's name, as box
    columns: list[Column]
    id: Column
    key: list[Part]
    where: "Condition | None"
    attributes: list[Column] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    @property
    def table_is_bare(self) -> bool:
        """Whether SQL finds it without its schema."""
        return not self.table.startswith(f"{self.schema}.")

    @property
    def answered(self) -> list[Column]:
        """What comes back, behind the id."""
        return [each for each in self.columns if each is not self.id and not each.unserved]

    def holds(self, reference: Reference) -> bool:
        """Tell whether its key has the column that refers to another table."""
        return any(part.column.sql == reference.column and not part.expression for part in self.key)

    def is_referred_to(self, table: "Table", part: Part) -> bool:
        """Tell whether a part of another table's key is a foreign key to this one."""
        return not part.expression and any(
            (each.oid, each.column) == (table.oid, part.column.sql) for each in self.references
        )

    def stored(self, prefix: str = "") -> list[str]:
        """Return the parts of the key of a row."""
        return [part.stored(prefix) for part in self.key]

    def of(self, prefix: str) -> list[str]:
        """Return the parts of the key of a table expression that has key_listed()."""
        return [part.of(prefix) for part in self.key]

    def key_names(self, prefix: str = "") -> list[str]:
        """Return what key_listed() calls them."""
        return [f"{prefix}{part.column.sql}" for part in self.key]

    def key_listed(self, prefix: str = "", column: str = "", instead: str = "") -> list[str]:
        """Return the parts of the key as columns; of one `column`, what is there instead."""
        return [
            f"{instead} AS {column}"
            if part.column.sql == column
            else f"{part.stored(prefix)} AS {part.column.sql}"
            if part.expression
            else part.value_of(prefix)
            for part in self.key
        ]

    def in_key(self, prefix: str = "", but: str = "") -> list[str]:
        """Return the conditions for a row to have a key, but for one column's."""
        there = [
            f"{prefix}{part.column.sql} IS NOT NULL"
            for part in self.key
            if not part.column.optional and part.column.sql != but
        ]
        return [*there, *([self.where(prefix)] if self.where else [])]


def literal(text: str) -> str:
    """Return a string as SQL has it."""
    return "'{}'".format(text.replace("'", "''"))


def replaced(text: str, instead: dict[str, str]) -> str:
    """Return a text with what stands for columns replaced."""
    for mark, sql in instead.items():
        text = text.replace(mark, sql)
    return text


def short(type_: str) -> str:
    """Return the shorter name of a type, if it has one."""
    return SHORT.get(type_, type_)
