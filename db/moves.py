"""What merge and its undo do to rows, in a transaction that has begun."""

from collections import Counter
from dataclasses import dataclass, field

from psycopg.types.json import Jsonb

from db.adoption import known_references
from db.pool import Connection, Row
from db.queries import QUERIES

Pairs = list[tuple[int, int]]  # the id of a row that goes, and the id of the one that stays
Item = tuple[str, int]  # a resource and an id


class Unmergeable(Exception):
    """A row that cannot be merged, or put back, without a loss."""


@dataclass
class Tally:
    """What became of some items."""

    rows: Counter[str] = field(default_factory=Counter)  # how many were moved, by resource
    notes: list[str] = field(default_factory=list)  # what was not, or not wholly, and why

    def add(self, other: "Tally") -> None:
        self.rows += other.rows
        self.notes += other.notes


async def merge_rows(connection: Connection, resource: str, pairs: Pairs, tally: Tally) -> None:
    """Move rows into merged, and what points at them to the rows that stay. Raises Unmergeable."""
    if not pairs:
        return
    ids, kept = [id_ for id_, _ in pairs], [kept for _, kept in pairs]
    # By a lock, not by a conflict: a row that is merged into one that goes meanwhile would be lost.
    if len(await ask(connection, f"{resource}/keep", list(set(kept)))) < len(set(kept)):
        raise Unmergeable("the row that it would be merged into is out of reach")
    pointed: dict[int, dict[str, list[int]]] = {}
    for reference in known_references(resource):
        folder = f"{resource}/{reference}"
        # First the rows that would share a key when they point at one row: the guard, if it is on,
        # refuses to make them.
        if f"{folder}/collisions" in QUERIES:
            table = reference.partition(".")[0]
            rows = await ask(connection, f"{folder}/collisions", ids, kept)
            colliding = [(row["id"], row["kept"]) for row in rows]
            await merge_rows(connection, table, colliding, tally)
        for row in await ask(connection, f"{folder}/repoint", ids, kept):
            pointed.setdefault(row["id"], {})[reference] = row["moved"]
        # A trigger or a policy may have kept a row where it was. A cascade would delete it.
        if await ask(connection, f"{folder}/left", ids):
            raise Unmergeable(f"{reference} still refers to it")
    removed = await ask(connection, f"{resource}/remove", ids, kept, Jsonb(pointed))
    if len(removed) < len(ids):
        raise Unmergeable("a trigger, a rule or a policy kept a row from being deleted")
    if not all(row["whole"] for row in removed):
        raise Unmergeable("JSON does not hold all of a column's value")
    tally.rows[resource] += len(removed)


async def restore(connection: Connection, items: list[Item]) -> Tally:
    """Put merged rows back, and let what pointed at them point at them again."""
    tally = Tally()
    for resource, id_ in items:
        for row in await ask(connection, f"{resource}/restore", id_):
            if row["changed"]:
                raise Unmergeable(f"{', '.join(row['changed'])} would not be as before")
            tally.rows[resource] += 1
            for reference, ids in row["pointed"].items():
                query = f"{resource}/{reference}/repoint_back"
                back = await ask(connection, query, id_, row["kept"], ids)
                if len(back) < len(ids):
                    tally.notes.append(
                        f"{resource} {id_} is back, but {len(ids) - len(back)} of the {len(ids)}"
                        f" rows of {reference} that pointed at it have changed since"
                    )
    return tally


async def ask(connection: Connection, query: str, *parameters: object) -> list[Row]:
    """Run one SQL file and return its rows."""
    cursor = await connection.execute(QUERIES[query], parameters)
    return await cursor.fetchall() if cursor.description else []
