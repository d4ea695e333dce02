"""What refers to a table, with the SQL that the templates need of it."""

from dataclasses import dataclass, field

from db.adopt.column import Column
from db.header import quoted


@dataclass(frozen=True)
class Unique:
    """A unique index of a referring table that includes the referring column."""

    name: str
    column: str  # the column that refers
    others: list[str]  # the SQL of its other columns and expressions
    predicate: str | None
    nulls_equal: bool

    @property
    def told(self) -> str:
        """The index in words."""
        columns = ", ".join([self.column, *self.others])
        return f"{quoted(self.name)}: {columns}" + (
            f" WHERE {self.predicate}" if self.predicate else ""
        )


@dataclass
class Reference:
    """A foreign key that refers to the table, or a column that --refers names."""

    table: str  # the table that refers, as it stands in SQL
    column: str  # its column, as it stands in SQL
    folder: str
    cascades: bool  # whether it is ON DELETE CASCADE
    key: list[Column]  # the columns that tell the rows of the referring table apart
    oid: int  # that of the table that refers
    kind: str  # relkind of pg_class; a partitioned table has all of its rows in its partitions
    row_type: str  # that of its rows
    stored_columns: list[str]  # its columns without the generated ones, or none if it has none
    target: Column  # the column to which it refers
    to_id: bool  # whether that is the primary key
    named: bool  # whether --refers names it, for there is no foreign key
    uniques: list[Unique] = field(default_factory=list)
    absorbed: bool = False  # whether rows that are in the way of others are moved into merged

    def row(self, prefix: str = "") -> str:
        """Return the SQL that identifies a row of the referring table."""
        columns = [f"{prefix}{column.sql}" for column in self.key]
        return columns[0] if len(columns) == 1 else _array(columns)

    def row_of(self, prefix: str, instead: str) -> str:
        """Return row() for columns named by the prefix and their place in the key."""
        columns = [
            instead if column.sql == self.column else f"{prefix}{place}"
            for place, column in enumerate(self.key, 1)
        ]
        return columns[0] if len(columns) == 1 else _array(columns)

    def as_id(self, prefix: str = "") -> str:
        """Return row() in a list of columns, under the name id."""
        row = self.row(prefix)
        return row if [each.sql for each in self.key] == ["id"] else f"{row} AS id"

    def row_is_one_of(self, parameter: str, prefix: str = "") -> str:
        """Return the condition that a row is one of those in an array of ids as text."""
        if len(self.key) == 1 and not self.key[0].unserved:
            (column,) = self.key
            ids = f"{parameter}::text[]::{column.bare}[]"
            return f"{prefix}{column.sql} {column.operator('=')} ANY ({ids})"
        return f"{self.row(prefix)}::text = ANY ({parameter}::text[])"

    def row_is(self, id_: str) -> str:
        """Return the condition that a row has an id, given as text; an index serves it."""
        if any(column.unserved for column in self.key):
            return f"{self.row(f'{self.table}.')}::text = {id_}"
        values = [id_]
        if len(self.key) > 1:
            values = [
                f"({id_}::jsonb OPERATOR(pg_catalog.->>) {n})" for n, _ in enumerate(self.key)
            ]
        return " AND ".join(
            f"{self.table}.{column.sql} {column.operator('=')} {value}::{column.bare}"
            for column, value in zip(self.key, values, strict=True)
        )


def _array(columns: list[str]) -> str:
    return f"pg_catalog.jsonb_build_array({', '.join(columns)})"
