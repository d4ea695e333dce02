"""A model of merge and its undo: what they must make of the accounts, without SQL."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from tests.support.accounts import REFERENCES, Adopted
from tests.support.orders import Row, in_order


@dataclass
class Gone:
    """What the model has in the place of a row of the table merged."""

    resource: str
    id: int
    kept: int
    row: Row | int  # of an account, or the account to which a row of another table refers
    pointed: dict[str, list[int]] = field(default_factory=dict)
    taken: dict[tuple[str, ...], tuple[list[Any], list[Any]]] = field(default_factory=dict)
    line: list[str] = field(default_factory=list)  # what a trigger changed beside, as it was
    reference: str = ""  # of a row of another table, that by which it refers to an account


@dataclass
class Model:
    """What the tables must hold."""

    adopted: Adopted
    accounts: dict[int, Row] = field(default_factory=dict)
    # By the reference, the account to which each row refers.
    refers: dict[str, dict[int, int]] = field(
        default_factory=lambda: {reference: {} for reference in REFERENCES}
    )
    merged: list[Gone] = field(default_factory=list)
    numbers: int = 0

    def edit(self, what: str, place: int, change: Any) -> tuple[str, int] | None:
        """Change a row; return what was done, and the number of the account, or None."""
        numbers = sorted(self.accounts)
        number = numbers[place % len(numbers)] if numbers else 0
        if what == "insert":
            number = self.numbers = self.numbers + 1
            self.accounts[number] = {**change, "number": number}
        elif not numbers:
            return None
        elif what == "refer":
            reference, id_ = change
            if not self._may_refer(reference, id_, number):
                return None
            self.refers[reference][id_] = number
        elif what == "delete":
            held = "hold" in self.adopted.triggers and self.accounts[number]["n"] == 2
            if held or any(number in its.values() for its in self.refers.values()):
                return None
            del self.accounts[number]
        else:
            name, value = change
            self.accounts[number][name] = value
        return what, number

    def _may_refer(self, reference: str, id_: int, number: int) -> bool:
        if any((each.reference, each.id) == (reference, id_) for each in self.merged):
            return False  # undo would find another row in its place
        others = {each for each, to in self.refers[reference].items() if to == number} - {id_}
        return reference != "members.account" or all(each % 2 != id_ % 2 for each in others)

    def merge(self) -> set[int]:
        """Merge each key; return the accounts that stay whose copies are not merged."""
        left = set()

        def key(row: Row) -> str:
            return str(row["name"]).lower()

        for row in self.accounts.values():
            references = [to for its in self.refers.values() for to in its.values()]
            row["orders"] = references.count(row["number"])
        for _, group in groupby(sorted(self.accounts.values(), key=key), key):
            copies = in_order(group, self.adopted.order)
            if len(copies) > 1 and not self._merge_key([dict(row) for row in copies]):
                left.add(int(copies[0]["number"]))
        if self.adopted.visits:
            self._merge_visits({number: number for number in self.accounts})
        return left

    def _merge_key(self, copies: list[Row]) -> bool:
        """Merge the rows of a key, which are in order; return whether they may be merged."""
        kept = int(copies[0]["number"])
        to_kept = {int(row["number"]): kept for row in copies}
        agree = [name for name, way in self.adopted.takes.items() if way == "agree"]
        members = self._sharing("members.account", to_kept, [*to_kept])
        if (
            any(copies[0][name] != other[name] for name in agree for other in copies)
            or (members and not self.adopted.absorbs)
            or ("hold" in self.adopted.triggers and any(row["n"] == 2 for row in copies[1:]))
        ):
            return False
        if self.adopted.visits:
            self._merge_visits(to_kept)
        self._move("members.account", "accounts/members.account", members)
        there = {}
        for row in copies[1:]:
            gone = there[int(row["number"])] = Gone("accounts", int(row["number"]), kept, row)
            for reference, its in self.refers.items():
                gone.pointed[reference] = [id_ for id_, to in its.items() if to == gone.id]
                its |= dict.fromkeys(gone.pointed[reference], kept)
            del self.accounts[gone.id]
        for name, way in self.adopted.takes.items():
            self._take(("street", "city") if name == "street" else (name,), way, copies, there)
        if line(copies[0]) != line(self.accounts[kept]):
            next(each for each in there.values() if each.taken).line = [line(copies[0])]
        self.merged += there.values()
        return True

    def _merge_visits(self, to_kept: dict[int, int]) -> None:
        """Merge the visits of these accounts that share a key once they refer to those kept."""
        ids = sorted(self.refers["visits.account"])
        pairs = self._sharing("visits.account", to_kept, ids, by_id=True)
        self._move("visits.account", "visits", pairs)

    def _sharing(
        self, reference: str, to_kept: dict[int, int], order: list[int], *, by_id: bool = False
    ) -> dict[int, int]:
        """Return rows that would share an account and the rest, by id, and which of them stays.

        The first one does, in the order of the accounts or by their own ids.
        """
        its = self.refers[reference]
        ids = [id_ for id_, to in its.items() if to in to_kept]
        ids.sort(key=lambda id_: order.index(id_ if by_id else its[id_]))
        first: dict[tuple[int, int], int] = {}
        stays = {id_: first.setdefault((to_kept[its[id_]], id_ % 2), id_) for id_ in ids}
        return {id_: kept for id_, kept in stays.items() if id_ != kept}

    def _move(self, reference: str, resource: str, pairs: dict[int, int]) -> None:
        for id_, kept in pairs.items():
            to = self.refers[reference].pop(id_)
            self.merged.append(Gone(resource, id_, kept, to, reference=reference))

    def _take(
        self, names: tuple[str, ...], way: str, copies: list[Row], there: dict[int, Gone]
    ) -> None:
        if way == "agree":
            return
        having = [row for row in copies if any(row[name] is not None for name in names)]
        if way != "fill" and having:
            by = names[0] if way == "largest" else "day"
            best = max((row[by] for row in having if row[by] is not None), default=None)
            having = [row for row in having if row[by] == best]
        if having and having[0] is not copies[0]:
            before = [copies[0][name] for name in names]
            after = [having[0][name] for name in names]
            self.accounts[int(copies[0]["number"])] |= dict(zip(names, after, strict=True))
            there[int(having[0]["number"])].taken[names] = (before, after)

    def undo(self) -> set[tuple[int, str]]:
        """Put all back; return which columns of which accounts that stayed are not as they were."""
        left = set()
        for gone in reversed(self.merged):
            if not isinstance(gone.row, dict):
                self.refers[gone.reference][gone.id] = gone.row
                continue
            survivor = self.accounts.get(gone.kept)
            for names, (before, after) in gone.taken.items():
                if survivor and [survivor[name] for name in names] == after:
                    survivor |= dict(zip(names, before, strict=True))
                else:
                    left |= {(gone.kept, name) for name in names}
            self.accounts[gone.id] = gone.row
            for reference, ids in gone.pointed.items():
                its = self.refers[reference]
                its |= {id_: gone.id for id_ in ids if its.get(id_) == gone.kept}
        if "write_line" in self.adopted.triggers:
            survivors = [(gone, self.accounts.get(gone.kept)) for gone in self.merged]
            left |= {
                (gone.kept, "line")
                for gone, survivor in survivors
                if survivor and any(was != line(survivor) for was in gone.line)
            }
        self.merged = []
        return left


def line(row: Row) -> str:
    """Return what the trigger write_line makes of a row."""
    return f"{row['street'] or ''}{row['city'] or ''}"


def moved(model: Model, before: int) -> Counter[str]:
    """Return how many rows the model has merged since it had so many, by resource."""
    return Counter(gone.resource for gone in model.merged[before:])
