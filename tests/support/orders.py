"""Orders for `adopt --keep` of the accounts that tests make, and a model of what they mean."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any

from hypothesis import strategies as st

Row = dict[str, Any]

# What an order may have in it, and how the model computes it.
VALUES: dict[str, Callable[[Row], Any]] = {
    "n": lambda row: row["n"],
    "done": lambda row: row["done"],
    "day": lambda row: row["day"],
    "abs(n)": lambda row: None if row["n"] is None else abs(row["n"]),
    # The key is lower(name), so that its rows may differ in this.
    "(name = lower(name))": lambda row: row["name"] == row["name"].lower(),
    "(data ->> 'x')::integer": lambda row: row["data"],  # no request can have this column
    "referring": lambda row: row["orders"],
    "(referring > 1)": lambda row: row["orders"] > 1,
    "number": lambda row: row["number"],
}


@dataclass(frozen=True)
class Element:
    """One expression of an order, with its direction."""

    text: str
    direction: str
    nulls: str

    def __str__(self) -> str:
        return f"{self.text}{self.direction}{self.nulls}"

    def compare(self, one: Row, other: Row) -> int:
        a, b = VALUES[self.text](one), VALUES[self.text](other)
        down = self.direction == " DESC"
        # Without NULLS FIRST or LAST, PostgreSQL takes NULL for larger than all values.
        nulls_first = self.nulls == " NULLS FIRST" if self.nulls else down
        if a is None or b is None:
            return ((b is None) - (a is None)) * (1 if nulls_first else -1)
        return int((a > b) - (a < b)) * (-1 if down else 1)


def in_order(rows: Iterable[Row], order: list[Element]) -> list[Row]:
    """Return the rows of a key in an order, by the model; the first one stays."""

    def compare(one: Row, other: Row) -> int:
        found = (element.compare(one, other) for element in order)
        differs = next((each for each in found if each), 0)
        return differs or int(one["number"]) - int(other["number"])

    return sorted(rows, key=cmp_to_key(compare))


elements = st.builds(
    Element,
    st.sampled_from(list(VALUES)),
    st.sampled_from(["", " ASC", " DESC"]),
    st.sampled_from(["", " NULLS FIRST", " NULLS LAST"]),
)
