"""What the row that stays takes over from the others, as the options of adopt say.

Each option is an order over the rows of a key, and the first row gives the value. Where rows are
equal in it, the row that stays comes first, and then the others in the order of --keep.
"""

import argparse
from dataclasses import dataclass

from db.adopt.arguments import NEWEST, WAYS
from db.adopt.column import Column, literal
from db.adopt.table import Table
from db.way_out.change import Refused


@dataclass(frozen=True)
class Take:
    """Columns whose values come from one and the same row of a key."""

    way: str  # "fill", "newest" or "largest"
    columns: tuple[Column, ...]  # several where they belong together
    by: Column | None = None  # for "newest"

    @property
    def told(self) -> str:
        """What is taken over, in words."""
        names = " and ".join(column.sql for column in self.columns)
        them = "any of them" if len(self.columns) > 1 else "one"
        if self.way == "largest":
            return f"{names}: the largest"
        if self.by:
            return f"{names}: of the row with the largest {self.by.sql}, of those that have {them}"
        return f"{names}: of the first row that has {them}"

    @property
    def names(self) -> str:
        """The columns' names as an array in SQL."""
        return f"ARRAY[{', '.join(literal(column.name) for column in self.columns)}]"

    def row(self, prefix: str) -> str:
        """Return the columns' values as SQL that can be compared as text."""
        return f"ROW({', '.join(prefix + column.sql for column in self.columns)})::text"

    def order(self, prefix: str) -> str:
        """Return the ORDER BY whose first row gives the values, without what decides a tie."""
        names = [prefix + column.sql for column in self.columns]
        if self.way == "largest":
            return f"{names[0]} DESC NULLS LAST"
        lacks = f"pg_catalog.num_nonnulls({', '.join(names)}) OPERATOR(pg_catalog.=) 0"
        if not self.by:
            return lacks
        # Where no row has a value, nothing is taken over from the newest one.
        return f"{lacks}, CASE WHEN NOT ({lacks}) THEN {prefix}{self.by.sql} END DESC NULLS LAST"


def choose_takes(table: Table, given: argparse.Namespace) -> None:
    """Set what the row of a table that stays takes over, and where its rows must agree.

    `given` has the options. Raises Refused.
    """
    ways: dict[str, str] = {}
    for way in WAYS:
        for name in _names(getattr(given, way)):
            if name in ways:
                raise Refused(f"{name} is in --{ways[name]} and in --{way}")
            _check(table, name, way)
            ways[name] = way
    by = _by(table, given.by, needed="newest" in ways.values())
    groups: list[list[str]] = []
    for text in given.together or []:
        group = _names(text)
        for name in group:
            _check(table, name, "together")
            if any(name in other for other in groups):
                raise Refused(f"{name} is in two of --together")
        # A column that is in no other option is filled.
        found = {ways.setdefault(name, "fill") for name in group}
        if len(group) < 2 or len(found) > 1 or found & {"largest", "agree"}:
            raise Refused(
                f"--together {text} must have two columns or more, all of --fill or all of --newest"
            )
        groups.append(group)
    alone = [[name] for name in ways if not any(name in group for group in groups)]
    columns = {column.name: column for column in table.columns}
    for names in [*alone, *groups]:
        way, of = ways[names[0]], tuple(columns[name] for name in names)
        if way == "agree":
            table.agree += of
        else:
            table.takes.append(Take(way, of, by if way == "newest" else None))


def _names(text: str | None) -> list[str]:
    return list(dict.fromkeys(name for name in (text or "").split(",") if name))


def _check(table: Table, name: str, way: str) -> None:
    """Raise Refused if a column is not there, or if its value cannot be another row's."""
    column = next((each for each in table.columns if each.name == name), None)
    if column is None:
        raise Refused(f"{table.name} has no column {name} for --{way}")
    in_condition = table.where is not None and column.sql in table.where.columns.values()
    for reason, is_so in {
        "is the primary key": column is table.id,
        "is generated": not column.settable,
        "is in the key": any(part.column is column for part in table.key),
        "is in the condition of --where": in_condition,
    }.items():
        if is_so and (way != "agree" or column is table.id):
            raise Refused(f"{name} {reason}, and cannot be in --{way}")


def _by(table: Table, name: str | None, *, needed: bool) -> Column | None:
    if not needed:
        if name is not None:
            raise Refused("--by goes with --newest")
        return None
    columns = {column.name: column for column in table.columns}
    for each in [name] if name is not None else NEWEST:
        if each in columns:
            return columns[each]
    raise Refused(
        f"{table.name} has no column {name if name is not None else ' or '.join(NEWEST)}:"
        " --newest needs one that --by names"
    )
