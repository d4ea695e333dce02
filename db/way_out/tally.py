"""The tally of a merge or an undo: what it has moved, what stays as it is, and why."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg import errors

from db.way_out import change
from db.way_out.change import Refused

Id = Any  # an id as psycopg loads it
Item = tuple[str, Id]  # a resource's name, and the id of a row


class Unmergeable(Exception):
    """A row that cannot be merged, or put back, without a loss."""


class Differ(Unmergeable):
    """Rows that must agree, and do not."""


class Triggered(NamedTuple):
    """What a trigger changed in a row in merge, and may have undone when undo is through."""

    resource: str
    id: str
    before: str  # the columns as they were, as JSON
    told: tuple[str, str]  # the note, before and behind the columns that are not as before


@dataclass
class Tally:
    """The outcome of some items."""

    rows: Counter[str] = field(default_factory=Counter)  # how many rows were moved, by resource
    differ: Counter[str] = field(default_factory=Counter)  # keys left out, for their rows differ
    left: int = 0  # items that stay as they are
    notes: list[str] = field(default_factory=list)  # items not moved, or not wholly, and why
    refused: list[str] = field(default_factory=list)  # resources that were not begun, and why
    triggered: list[Triggered] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.rows += other.rows
        self.differ += other.differ
        self.left += other.left
        self.notes += other.notes
        self.refused += other.refused
        self.triggered += other.triggered


def merged_rows(url: str) -> Counter[str]:
    """Return how many rows are in the table merged, by resource. Raises Refused if it is not there.

    What a command has done is told by them, because it may not hear that a transaction committed.
    """
    with change.connect(url, "merge") as connection:
        try:
            rows = change.ask(connection, "way_out/merged_counts")
        except errors.UndefinedTable:
            raise Refused("there is no table merged: run `python -m db init` first") from None
    return Counter({row["resource"]: row["removed"] for row in rows})


def as_text(id_: Id) -> str:
    """Return an id as text, as PostgreSQL writes it."""
    return str(id_).lower() if isinstance(id_, bool) else str(id_)
