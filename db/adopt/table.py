"""A table and its key, with the SQL that the templates need of them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from db.adopt.column import Column, Condition, Order, Part
from db.adopt.reference import Reference
from db.header import quoted

if TYPE_CHECKING:
    from db.adopt.takes import Take


@dataclass
class Table:
    """A table and its key, as the files of a resource need them."""

    name: str  # the resource's name
    oid: int
    kind: str  # relkind of pg_class
    version: int  # server_version_num
    schema: str
    full: str  # the table's name with its schema
    table: str  # the table's name as it stands in SQL, with its schema if it needs one
    table_line: str | None  # the same, if get.sql needs a line for it
    row_type: str  # the row's type; with a schema if another type has the table's name, such as box
    columns: list[Column]
    id: Column
    key: list[Part]
    where: Condition | None
    keep: Order
    attributes: list[Column] = field(default_factory=list)
    takes: list["Take"] = field(default_factory=list)  # what the row that stays takes over
    agree: list[Column] = field(default_factory=list)  # where the rows of a key must agree
    refers: list[str] = field(default_factory=list)  # the texts of --refers
    absorb: list[str] = field(default_factory=list)  # the references of --absorb
    references: list[Reference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    @property
    def table_is_bare(self) -> bool:
        """Whether the files have the table's name without its schema."""
        return not self.table.startswith(f"{self.schema}.")

    @property
    def answered(self) -> list[Column]:
        """The columns of an answer behind the id."""
        return [each for each in self.columns if each is not self.id and not each.unserved]

    def holds(self, reference: Reference) -> bool:
        """Tell whether the key of this table has the column of a reference from it."""
        return any(part.column.sql == reference.column and not part.expression for part in self.key)

    def is_referred_to(self, table: "Table", part: Part) -> bool:
        """Tell whether a part of another table's key is a foreign key to this one."""
        return not part.expression and any(
            (each.oid, each.column, each.to_id) == (table.oid, part.column.sql, True)
            for each in self.references
        )

    def stored(self, prefix: str = "") -> list[str]:
        """Return the SQL of each part of the key, for a row of the table."""
        return [part.stored(prefix) for part in self.key]

    def given_in(self, prefix: str) -> list[str]:
        """Return the SQL of each part of the key, for a row of what a client has sent."""
        return [part.given_in(prefix) for part in self.key]

    def of(self, prefix: str) -> list[str]:
        """Return the SQL of each part of the key, for a row with the columns of key_listed()."""
        return [part.of(prefix) for part in self.key]

    def key_names(self, prefix: str = "") -> list[str]:
        """Return the names of the columns of key_listed()."""
        return [f"{prefix}{part.column.sql}" for part in self.key]

    def key_listed(self, prefix: str = "", column: str = "", instead: str = "") -> list[str]:
        """Return the parts of the key as columns, with `instead` in the place of `column`."""
        return [
            f"{instead} AS {column}"
            if part.column.sql == column
            else f"{part.stored(prefix)} AS {part.column.sql}"
            if part.expression
            else part.value_of(prefix)
            for part in self.key
        ]

    @property
    def stays(self) -> str:
        """Which row of a key stays, in words."""
        return "the first by --keep" if self.keep.elements else "the lowest id"

    def order(self, prefix: str) -> str:
        """Return the ORDER BY whose first row stays, for rows of the table or an alias of it."""
        names = {column.name: prefix + column.sql for column in self.columns}
        id_ = prefix + self.id.sql
        return self.keep(names, self._referring(id_), id_)

    def order_in(self, rows: str, *, keys: bool, when: str = "") -> str:
        """Return order() for a common table expression that has the columns of order_listed().

        The rows that refer to a row are counted only `when` a condition holds.
        """
        names = {column.name: self._listed_as(column, keys) for column in self.columns}
        referring = self._referring(f"{rows}.id")
        if when:
            referring = f"CASE WHEN {when} THEN {referring} END"
        return self.keep(names, referring, "id")

    def order_listed(self, prefix: str = "", *, keys: bool) -> list[str]:
        """Return the columns that the order needs beside the others of a common table expression.

        Those others are the id and, with `keys`, key_names(), or else all columns of an answer.
        """
        return [
            f"{prefix}{column.sql}" + (f" AS {name}" if name != column.sql else "")
            for column, name in self._order_columns(keys)
        ]

    @property
    def order_names(self) -> list[str]:
        """The names of the columns of order_listed(keys=True)."""
        return [name for _, name in self._order_columns(keys=True)]

    def _order_columns(self, keys: bool) -> list[tuple[Column, str]]:
        there = [part.column for part in self.key if not part.expression] if keys else self.answered
        return [
            (column, self._listed_as(column, keys))
            for column in self.keep.columns.values()
            if column is not self.id and column not in there
        ]

    def _listed_as(self, column: Column, keys: bool) -> str:
        if column is self.id:
            return "id"
        if keys and any(part.expression and part.column is column for part in self.key):
            # The column's own name is that of the key's expression.
            return quoted(f"{column.name}_stored")
        return column.sql

    def _referring(self, id_: str) -> str:
        """Return the SQL that counts the rows that refer to the row with this id."""
        counts = [
            f"(SELECT count(*) FROM {each.table} AS referring_rows"
            f" WHERE referring_rows.{each.column} {self.id.operator('=')} {id_})"
            for each in self.references
            if each.to_id
        ]
        return counts[0] if len(counts) == 1 else f"({' + '.join(counts)})"

    def in_key(self, prefix: str = "", but: str = "") -> list[str]:
        """Return the conditions on which a row has a key, without that about the column `but`."""
        there = [
            f"{prefix}{part.column.sql} IS NOT NULL"
            for part in self.key
            if not part.column.optional and part.column.sql != but
        ]
        return [*there, *([self.where(prefix)] if self.where else [])]
