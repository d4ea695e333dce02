"""Merge: keeps one of the rows that share a key, and points at it what referred to the others."""

import math
from collections.abc import Iterable

import psycopg

from db.connection import Connection
from db.resources import RESOURCES
from db.texts import say
from db.transaction import SchemaMissing
from db.way_out import change
from db.way_out.batches import SECONDS, Run, WritersGoOn, in_batches
from db.way_out.change import Refused, with_remedy
from db.way_out.moves import differing, merge_rows, obstructed, rows_of
from db.way_out.references import (
    check,
    check_absorbed,
    check_columns,
    check_references,
    children,
    family,
    held_against,
    is_absorbed,
    locks,
    nothing_of,
    unindexed,
)
from db.way_out.tally import Item, Tally, merged_rows

# How many keys one transaction merges. A server that can lock fewer pages one by one, of the index
# by which the keys are found, gets smaller batches.
BATCH = 200

# How many batches are merged at a time: one is at work in the server while the other is here.
TOGETHER = 2

# How often merge goes through all duplicates. A key is left out of a pass if the row that was to be
# kept is deleted before its turn. Duplicates after three passes are new ones, which somebody makes
# without the guard.
PASSES = 3


async def merge(
    url: str,
    limit: int | None,
    seconds: float = SECONDS,
    names: Iterable[str] = RESOURCES,
    but: list[str] | None = None,
) -> Tally:
    """Merge the keys that several rows share, those with the most rows first, at most `limit` keys.

    A key that takes longer than `seconds` stays as it is, and is in the notes of the Tally. Keys
    that stay do not count for the limit. A resource that cannot be merged is in the Tally's
    `refused`. Unless `but` is None, keys are left out whose rows differ in a column that it does
    not name. The rows of the Tally are all that came into the table merged meanwhile.

    Raises Refused if it names no column, Unavailable or psycopg.Error; what was committed by then
    stays merged.
    """
    total = Tally()
    left = math.inf if limit is None else limit
    names = list(names)
    with change.connect(url, "merge") as connection:
        check_columns(connection, names, but or [])
    before = merged_rows(url)
    for name in names:
        try:
            left -= await _merge_one(url, name, left, seconds, but, total)
        except (Refused, SchemaMissing, psycopg.ProgrammingError) as error:
            total.refused.append(f"{name}: {with_remedy(error)}")
    total.rows = merged_rows(url) - before
    return total


async def _merge_one(
    url: str, name: str, limit: float, seconds: float, but: list[str] | None, total: Tally
) -> int:
    """Merge at most `limit` keys of one resource, add to `total`, and return how many they were.

    The keys that stay as they are do not count.
    """
    with change.connect(url, "merge") as connection:
        check(connection, name)
        statements = locks(connection, family(name))
        pages = change.ask(connection, "pages")[0]["pages"]
        for line in unindexed(connection, name):
            say(line)

    async def work(connection: Connection, items: list[Item], locked: bool) -> Tally:
        if not locked:
            await _check_guarded(connection, name)
        return await merge_keys(connection, items, but)

    run = Run(
        work,
        query=change.sql_of(f"{name}/duplicates"),
        parameters=[],
        title=name,
        unit=" keys",
        locks=statements,
        url=url,
        seconds=seconds,
        batch=max(1, min(BATCH, pages)),
        together=TOGETHER,
        only_equal=but is not None,
    )
    done = 0
    tally = Tally()
    for _ in range(PASSES):
        if done >= limit:
            break
        more, tally = await in_batches(run, limit - done)
        done += more
        if not more:
            break
    # Only the notes of the last pass are told, because a later pass may merge what one has left.
    total.notes += tally.notes
    total.differ += tally.differ
    return done


async def _check_guarded(connection: Connection, name: str) -> None:
    """Raise WritersGoOn if merging this resource makes new keys and the guard is not on.

    A child that is pointed at another parent gets a new key. With the guard on, a writer that
    creates that key at the same time waits at the guard's row for the key. Without the guard only
    predicate locks would tell, and PostgreSQL forgets those of transactions that have ended while a
    longer one runs.
    """
    if children(RESOURCES[name]):
        for each in family(name):
            status = await rows_of(connection, "way_out/guard_status", each.table, each.name)
            if status[0]["status"] != "on":
                raise WritersGoOn


async def merge_keys(
    connection: Connection, items: list[Item], but: list[str] | None = None
) -> Tally:
    """Merge the rows that share a key with one of the items, all of one resource.

    Unless `but` is None, keys are left out whose rows differ in a column that it does not name.
    Raises Refused, Unmergeable or psycopg.Error.
    """
    name = items[0][0]
    for each in family(name):
        foreign_keys = await rows_of(connection, "way_out/foreign_keys", *held_against(each))
        check_references(each, foreign_keys)
        for reference in each.references:
            if is_absorbed(each, reference):
                others = await rows_of(connection, "way_out/foreign_keys", *nothing_of(reference))
                check_absorbed(reference, others)
    rows = await rows_of(connection, f"{name}/surplus", [id_ for _, id_ in items])
    tally = Tally()
    pairs = [(row["id"], row["kept"]) for row in rows]
    # A key that is left out here costs its batch nothing.
    left = await obstructed(connection, RESOURCES[name], pairs)
    differ = await differing(connection, RESOURCES[name], pairs, but) if pairs else {}
    if but is None:
        left |= {id_: f"its copies differ in {names}" for id_, names in differ.items()}
    else:
        tally.differ[name] = len(differ)
    tally.notes += [f"{name} {id_} stays as it is: {why}" for id_, why in left.items()]
    tally.left = len({*left, *differ})
    pairs = [(id_, kept) for id_, kept in pairs if kept not in left and kept not in differ]
    await merge_rows(connection, RESOURCES[name], pairs, tally, but=but)
    return tally
