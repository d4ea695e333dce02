"""Moves rows for merge and its undo, in a transaction that the caller has begun."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb

from db.connection import Connection, Row
from db.header import names_of, table_of
from db.queries import QUERIES
from db.resources import RESOURCES, Resource
from db.way_out.change import sql_of

Id = Any  # an id as psycopg loads it
Pairs = list[tuple[Id, Id]]  # the id of a row that goes, and the id of the row that stays
Item = tuple[str, Id]  # a resource's name, and the id of a row


class Unmergeable(Exception):
    """A row that cannot be merged, or put back, without a loss."""


class Differ(Unmergeable):
    """Rows that must agree, and do not."""


@dataclass
class Tally:
    """The outcome of some items."""

    rows: Counter[str] = field(default_factory=Counter)  # how many rows were moved, by resource
    differ: Counter[str] = field(default_factory=Counter)  # keys left out, for their rows differ
    left: int = 0  # items that stay as they are
    notes: list[str] = field(default_factory=list)  # items not moved, or not wholly, and why
    refused: list[str] = field(default_factory=list)  # resources that were not begun, and why

    def add(self, other: "Tally") -> None:
        self.rows += other.rows
        self.differ += other.differ
        self.left += other.left
        self.notes += other.notes
        self.refused += other.refused


def children(resource: Resource) -> dict[str, Resource]:
    """Return the resources whose rows may come to share a key when this one is merged.

    They are by the reference, "table.column", that their key holds.
    """
    by_table = {names_of(each.table): each for each in RESOURCES.values()}
    return {
        reference: by_table[names_of(reference)[:-1]]
        for reference in resource.references
        if f"{reference}/collisions" in resource.files
    }


def family(name: str) -> list[Resource]:
    """Return a resource, its children, their children, and so on."""
    found = [RESOURCES[name]]
    for each in found:  # the list grows while it is gone through
        found += [child for child in children(each).values() if child not in found]
    return found


def tables(resources: list[Resource]) -> list[str]:
    """Return the tables of some resources, and the tables that refer to those."""
    referring = {table_of(reference) for each in resources for reference in each.references}
    return sorted({each.table for each in resources} | referring)


async def merge_rows(
    connection: Connection,
    resource: Resource,
    pairs: Pairs,
    tally: Tally,
    under_way: frozenset[tuple[str, str]] = frozenset(),
    but: list[str] | None = None,
) -> None:
    """Move rows into the table merged, and point what refers to them at the rows that stay.

    Children that would come to share a key are merged first, by a call for them. `under_way` has
    the rows for whose sake that is done, as resources and ids. `but` is that of differing() for
    those children. Raises Unmergeable or psycopg.Error.
    """
    if not pairs:
        return
    name = resource.name
    ids, kept = [id_ for id_, _ in pairs], [kept for _, kept in pairs]
    going = frozenset((name, as_text(id_)) for id_ in ids)
    # Rows that refer to each other in a circle would be merged for each other's sake without end.
    if going & under_way:
        raise Unmergeable("rows refer to each other in a circle")
    # The rows that stay are locked, because serializable transactions alone do not keep every
    # writer from deleting one. Rows that were merged into a deleted row would be lost.
    await _lock(connection, f"{name}/keep", kept)
    pointed: dict[str, dict[str, list[str]]] = {}
    sharing = children(resource)
    # The children that will share a key are merged before they are pointed at one row, because the
    # guard, if it is on, refuses a second row for a key.
    for reference, child in sharing.items():
        rows = await rows_of(connection, f"{name}/{reference}/collisions", ids, kept)
        colliding = [(row["id"], row["kept"]) for row in rows]
        # The column that refers differs until the rows are pointed at one.
        may_differ = None if but is None else [*but, names_of(reference)[-1]]
        for id_, names in (await differing(connection, child, colliding, may_differ)).items():
            raise Differ(f"{child.name} {id_} and what would be merged into it differ in {names}")
        await merge_rows(connection, child, colliding, tally, under_way | going, but)
        await _point(connection, resource, reference, pairs, pointed, tally)
    others = sorted({*resource.references} - {*sharing})
    # Undo takes the rows one by one, and finds what referred to each by the id that it got then.
    for some in [[pair] for pair in pairs] if _change_twice(resource, others) else [pairs]:
        for reference in others:
            await _point(connection, resource, reference, some, pointed, tally)
    removed = await rows_of(connection, f"{name}/remove", ids, kept, Jsonb(pointed))
    _check_removed(removed, len(ids))
    if "fill" in resource.files:
        filled = await rows_of(connection, f"{name}/fill", ids, kept)
        if not all(row["filled"] for row in filled):
            raise Unmergeable("a trigger, a rule or a policy kept the row that stays as it was")
        if not all(row["whole"] for row in filled):
            raise Unmergeable("JSON does not hold all of a column's value")
        if not all(row["in_key"] for row in filled):
            raise Unmergeable("a trigger gave the row that stays another key as it took over")
    tally.rows[name] += len(removed)


async def _lock(connection: Connection, query: str, ids: list[Id]) -> None:
    if len(await rows_of(connection, query, list(set(ids)))) < len(set(ids)):
        raise Unmergeable("the row that would stay cannot be locked: a policy may hide it")


def _change_twice(resource: Resource, references: list[str]) -> bool:
    """Tell whether a row that refers by several of these has one of them in its primary key."""
    times = Counter(map(table_of, references))
    # A column of the primary key is in a unique index, and so there is a file for it.
    return any(
        times[table_of(each)] > 1 and f"{each}/conflicts" in resource.files for each in references
    )


async def _point(
    connection: Connection,
    resource: Resource,
    reference: str,
    pairs: Pairs,
    pointed: dict[str, dict[str, list[str]]],
    tally: Tally,
) -> None:
    """Point the rows of a reference at the rows that stay, and add them to `pointed`.

    Raises Unmergeable or psycopg.Error.
    """
    folder = f"{resource.name}/{reference}"
    ids, kept = [id_ for id_, _ in pairs], [kept for _, kept in pairs]
    stay = await _make_way(connection, resource, reference, ids, kept, tally)
    for row in await rows_of(connection, f"{folder}/repoint", ids, kept):
        pointed.setdefault(as_text(row["id"]), {})[reference] = row["moved"]
    if stay:  # only now, because one that was pointed itself has got another id
        await _lock(connection, f"{folder}/keep", stay)
    # If a trigger or a policy has kept a row from being pointed at the new one, ON DELETE CASCADE
    # would delete that row. To know which rows are left of those that refer to another column, the
    # file is given the rows that stay, too.
    left = resource.files[f"{reference}/left"].placeholders
    if await rows_of(connection, f"{folder}/left", *[ids, kept][: len(left)]):
        raise Unmergeable(f"{reference} still refers to it")


def _check_removed(removed: list[Row], wanted: int) -> None:
    if len(removed) < wanted:
        raise Unmergeable("a trigger, a rule or a policy kept a row from being deleted")
    if not all(row["whole"] for row in removed):
        raise Unmergeable("JSON does not hold all of a column's value")


async def _make_way(
    connection: Connection,
    resource: Resource,
    reference: str,
    ids: list[Id],
    kept: list[Id],
    tally: Tally,
) -> list[Id]:
    """Move the rows of a reference into merged that a unique index keeps from being pointed.

    Returns the rows that stay in their place. Raises Unmergeable if there is no file for that.
    """
    if f"{reference}/conflicts" not in resource.files:
        return []
    others: list[Id] = []
    folder = f"{resource.name}/{reference}"
    if rows := await rows_of(connection, f"{folder}/conflicts", ids, kept):
        if not is_absorbed(resource, reference):
            raise Unmergeable(in_the_way(reference))
        gone, others = [row["id"] for row in rows], [row["kept"] for row in rows]
        removed = await rows_of(connection, f"{folder}/remove", gone, others, Jsonb({}))
        _check_removed(removed, len(gone))
        tally.rows[folder] += len(removed)
    return others


def is_absorbed(resource: Resource, reference: str) -> bool:
    """Tell whether rows of a reference go into merged where they are in the way of others."""
    return f"{reference}/remove" in resource.files


def in_the_way(reference: str) -> str:
    """Return why a key stays whose rows have others in the way."""
    return f"two rows of {reference} would share what a unique index allows once"


async def obstructed(connection: Connection, resource: Resource, pairs: Pairs) -> dict[Id, str]:
    """Return why a key stays as it is, by the id that would stay, as far as references say so."""
    ids, kept = [id_ for id_, _ in pairs], [kept for _, kept in pairs]
    found: dict[Id, str] = {}
    for reference in resource.references:
        # Children that come to share a key are merged first, which may clear the way.
        if (
            f"{reference}/conflicts" in resource.files
            and not is_absorbed(resource, reference)
            and reference not in children(resource)
        ):
            query = f"{resource.name}/{reference}/conflicts"
            for row in await rows_of(connection, query, ids, kept):
                found[row["stays"]] = in_the_way(reference)
    return found


async def differing(
    connection: Connection, resource: Resource, pairs: Pairs, but: list[str] | None
) -> dict[Id, str]:
    """Return the columns in which rows must agree and do not, in words, by the id that stays.

    They must agree in those of `adopt --agree`, and unless `but` is None in all that it does not
    name.
    """
    ids, kept = [id_ for id_, _ in pairs], [kept for _, kept in pairs]
    rows = []
    if "agree" in resource.files:
        rows += await rows_of(connection, f"{resource.name}/agree", ids, kept)
    if but is not None:
        rows += await rows_of(connection, f"{resource.name}/equal", ids, kept, but)
    return {row["id"]: " and ".join(row["names"]) for row in rows}


async def restore(connection: Connection, items: list[Item]) -> Tally:
    """Put merged rows back, and point at them again what referred to them before the merge.

    The rows that were kept get back what they had before they took over a column of these. Raises
    Unmergeable or psycopg.Error.
    """
    tally = Tally()
    for resource, id_ in items:
        # A unique value that was taken over must be free before the row comes back that had it.
        can_unfill = f"{resource}/unfill" in QUERIES
        taken = await rows_of(connection, f"{resource}/unfill", as_text(id_)) if can_unfill else []
        for row in await rows_of(connection, f"{resource}/restore", as_text(id_)):
            if row["changed"]:
                raise Unmergeable(f"{', '.join(row['changed'])} would not be as before")
            if row.get("filled") and not can_unfill:
                raise Unmergeable(f"there is no {resource}/unfill.sql")
            survivor = f"{resource} {row['kept']}"
            tally.rows[resource] += 1
            tally.notes += [
                f"{resource} {id_} is back, but {left}" for left in _not_back(survivor, taken)
            ]
            await _point_back(connection, resource, id_, row, tally)
    return tally


def _not_back(survivor: str, taken: list[Row]) -> list[str]:
    """Return in words what the row that was kept has not got back, by what unfill.sql returns.

    Raises Unmergeable if it should have got something back.
    """
    names = {
        outcome: " and ".join(row["name"] for row in taken if row["outcome"] == outcome)
        for outcome in ("not put back", "changed", "gone", "beside")
    }
    if names["not put back"]:
        raise Unmergeable(f"{survivor} would not get back its own {names['not put back']}")
    told = {
        "changed": f"{survivor} keeps {names['changed']}, which changed since it was taken over",
        "gone": f"{survivor}, which took over {names['gone']}, is gone",
        "beside": f"{survivor} keeps {names['beside']}, which a trigger changed",
    }
    return [text for outcome, text in told.items() if names[outcome]]


async def _point_back(
    connection: Connection, resource: str, id_: Id, row: Row, tally: Tally
) -> None:
    """Point at a row what referred to it; `row` is what restore.sql has returned."""
    # What merge_rows() pointed last is first, for a row may have got another id each time.
    for reference, ids in sorted(row["pointed"].items(), reverse=True):
        query = f"{resource}/{reference}/repoint_back"
        if query not in QUERIES:
            raise Unmergeable(f"there is no {query}.sql")
        texts = [as_text(each) for each in ids]
        back = await rows_of(connection, query, as_text(id_), as_text(row["kept"]), texts)
        if len(back) < len(ids):
            tally.notes.append(
                f"{resource} {id_} is back, but {len(ids) - len(back)} of the {len(ids)}"
                f" rows of {reference} that pointed at it have changed since"
            )


def as_text(id_: Id) -> str:
    """Return an id as text, as PostgreSQL writes it."""
    return str(id_).lower() if isinstance(id_, bool) else str(id_)


async def rows_of(connection: Connection, query: str, *parameters: object) -> list[Row]:
    """Run one SQL file, as "way_out/kind", and return its rows.

    Raises Refused if there is no such file, or psycopg.Error.
    """
    cursor = await connection.execute(sql_of(query), parameters)
    return await cursor.fetchall() if cursor.description else []
