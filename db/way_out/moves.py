"""Moves rows for merge, in a transaction that the caller has begun."""

from collections import Counter

from psycopg.types.json import Jsonb

from db.connection import Connection
from db.header import names_of, table_of
from db.pipeline import Row
from db.resources import Resource
from db.way_out.change import sql_of
from db.way_out.references import children, is_absorbed
from db.way_out.tally import Differ, Id, Tally, Unmergeable, as_text

Pairs = list[tuple[Id, Id]]  # the id of a row that goes, and the id of the row that stays


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
        raise Unmergeable(
            "rows refer to each other in a circle: let one refer to a row outside of it, and merge"
            " again"
        )
    # The rows that stay are locked, because serializable transactions alone do not keep every
    # writer from deleting one. Rows that were merged into a deleted row would be lost.
    await _lock(connection, f"{name}/keep", kept)
    had = await _before(connection, resource, ids)
    kept_had = await _before(connection, resource, kept) if "fill" in resource.files else []
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
    rest = sorted({*resource.references} - {*sharing})
    # Undo takes the rows one by one, and finds what referred to each by the id that it got then.
    for some in [[pair] for pair in pairs] if _change_twice(resource, rest) else [pairs]:
        for reference in rest:
            await _point(connection, resource, reference, some, pointed, tally)
    removed = await _run(connection, resource, "remove", ids, kept, Jsonb(pointed), had)
    _check_removed(removed, len(ids))
    if "fill" in resource.files:
        filled = await _run(connection, resource, "fill", ids, kept, had, kept_had)
        if not all(row["filled"] for row in filled):
            raise Unmergeable("a trigger, a rule or a policy kept the row that stays as it was")
        if not all(row["whole"] for row in filled):
            raise Unmergeable("JSON does not hold all of a column's value")
        if not all(row["in_key"] for row in filled):
            raise Unmergeable("a trigger gave the row that stays another key as it took over")
    tally.rows[name] += len(removed)


async def _before(connection: Connection, resource: Resource, ids: list[Id]) -> list[str | None]:
    """Return each row as it is before triggers can change it, as JSON, or None the next times."""
    if "before" not in resource.files:
        return []
    rows = await rows_of(connection, f"{resource.name}/before", ids)
    before = {row["id"]: row["before"] for row in rows}
    return [before.pop(id_, None) for id_ in ids]


async def _run(
    connection: Connection, resource: Resource, file: str, *parameters: object
) -> list[Row]:
    """Run a file of a resource with as many of these parameters as it has; return its rows."""
    most = len(resource.files[file].placeholders)
    return await rows_of(connection, f"{resource.name}/{file}", *parameters[:most])


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
    if await _run(connection, resource, f"{reference}/left", ids, kept):
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
    rows = await _conflicts(connection, resource, reference, ids, kept)
    gone, others = [row["id"] for row in rows], [row["kept"] for row in rows]
    if rows:
        if not is_absorbed(resource, reference):
            raise Unmergeable(_in_the_way(reference))
        folder = f"{resource.name}/{reference}"
        removed = await rows_of(connection, f"{folder}/remove", gone, others, Jsonb({}))
        _check_removed(removed, len(gone))
        tally.rows[folder] += len(removed)
    return others


async def _conflicts(
    connection: Connection, resource: Resource, reference: str, ids: list[Id], kept: list[Id]
) -> list[Row]:
    """Return the rows of a reference that a unique index keeps from being pointed."""
    if f"{reference}/conflicts" not in resource.files:
        return []
    return await rows_of(connection, f"{resource.name}/{reference}/conflicts", ids, kept)


def _in_the_way(reference: str) -> str:
    return f"two rows of {reference} would share what a unique index allows once"


async def obstructed(connection: Connection, resource: Resource, pairs: Pairs) -> dict[Id, str]:
    """Return why a key stays as it is, by the id that would stay, as far as references say so."""
    ids, kept = [id_ for id_, _ in pairs], [kept for _, kept in pairs]
    # Children that come to share a key are merged first, which may clear the way.
    return {
        row["stays"]: _in_the_way(reference)
        for reference in resource.references
        if not is_absorbed(resource, reference) and reference not in children(resource)
        for row in await _conflicts(connection, resource, reference, ids, kept)
    }


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


async def rows_of(connection: Connection, query: str, *parameters: object) -> list[Row]:
    """Run one SQL file, as "way_out/kind", and return its rows.

    Raises Refused if there is no such file, or psycopg.Error.
    """
    cursor = await connection.execute(sql_of(query), parameters)
    return await cursor.fetchall() if cursor.description else []
