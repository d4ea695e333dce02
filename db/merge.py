"""Merge: of the rows that share a key one stays, and what pointed at the others points at it."""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from itertools import islice

import psycopg
from psycopg import AsyncConnection, AsyncRawServerCursor
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from tqdm import tqdm

from db import change
from db.adoption import (
    KEYS,
    check_references,
    duplicates,
    key_text,
    known_references,
    refuse_guarded,
)
from db.change import ask
from db.pool import Connection, FiniteTimestamp, Pool, Row, open_pool
from db.queries import QUERIES
from db.settings import Settings
from db.transaction import Attempts, NoConnection, ReadOnlyDatabase, Unavailable, serializable

# Keys in one transaction. One by one they make 500 a second, by 20 some 7,000: the time goes into
# COMMIT and round trips. More would meet the service's requests more often, and repeat more work.
BATCH = 20

# Seconds for a transaction with its retries: a batch; if that fails, each of its keys; if that
# fails, the key with all other writers kept out, as a key with thousands of rows, or employees, may
# need. 20,000 take half a second so, and a request waits for 2.5.
DEADLINES = {"batch": 5.0, "alone": 5.0, "writers locked out": 60.0}

# Milliseconds that it waits for someone's lock, while requests may wait for those it has.
LOCK_TIMEOUT = 1000

# Keys shown of what merge would do, and rows of each.
EXAMPLES = 5

NEXT = {"batch": "alone", "alone": "writers locked out"}

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


Work = Callable[[Connection, list[Item]], Awaitable[Tally]]  # in a transaction


def plan(connection: change.Connection) -> None:
    """Print what merge would do. Raises Refused."""
    for resource in KEYS:
        check_references(resource, ask(connection, "foreign_keys", resource))
        totals = ask(connection, f"{resource}/plan")[0]
        print(
            f"{resource}: {totals['keys']:,} keys would keep their lowest id,"
            f" {totals['removed']:,} rows would go",
            end=f", {totals['referring']:,} rows refer to those.\n"
            if totals["referring"]
            else ".\n",
        )
        for key in islice(duplicates(connection, resource), EXAMPLES):
            pairs = ask(connection, f"{resource}/surplus", [key["id"]])
            going = ", ".join(str(pair["id"]) for pair in pairs[:EXAMPLES])
            more = f" and {len(pairs) - EXAMPLES:,} more" if len(pairs) > EXAMPLES else ""
            print(f"  {key_text(key)}: {key['id']} stays, {going}{more} would go")


async def merge(url: str, limit: int | None) -> Tally:
    """Merge all keys that several rows share, or the first `limit` keys, the worst first.

    Raises Refused, Unavailable or psycopg.Error; what was committed by then stays merged.
    """
    total = Tally()
    async with _pool(url) as pool:
        for resource in KEYS:
            tally = Tally()
            while limit is None or limit > 0:
                query = f"{resource}/duplicates"
                seen, tally = await _in_batches(pool, url, query, limit, merge_keys, resource)
                total.rows += tally.rows
                if limit is not None:
                    limit -= seen
                # Again: meanwhile a row that was to be kept may have been deleted, which left the
                # others as they were.
                if not tally.rows:
                    break
            total.notes += tally.notes  # of the last pass: an earlier one's may be merged since
    return total


async def undo(url: str, limit: int | None) -> Tally:
    """Put back what was merged, or the last `limit` rows of it, the last first.

    Raises Refused, Unavailable or psycopg.Error; what was committed by then stays put back.
    """
    with change.connect(url, "merge") as connection:
        refuse_guarded(connection)
    async with _pool(url) as pool:
        _, tally = await _in_batches(pool, url, "merged_last_first", limit, restore, "merged")
    return tally


def _pool(url: str) -> AbstractAsyncContextManager[Pool]:
    """One connection, set up as the service's are, but with more time."""
    longest = max(DEADLINES.values())
    patient = change.patient(url, "merge")
    return open_pool(Settings(database_url=patient, pool_size=1, retry_deadline=longest))


async def _in_batches(
    pool: Pool, url: str, query: str, limit: int | None, work: Work, title: str
) -> tuple[int, Tally]:
    """Do the work on what a query lists, BATCH items in a transaction; return how many it was."""
    seen = 0
    total = Tally()
    unit = " keys" if work is merge_keys else " rows"
    batches = _batches(url, query, limit)
    async with aclosing(batches):
        with tqdm(desc=title, unit=unit, disable=None) as bar:  # on a terminal only
            async for rows in batches:
                bar.total = min(rows[0]["total"], math.inf if limit is None else limit)
                items = [(row["resource"], row["id"]) for row in rows]
                total.add(await _attempt(pool, items, work))
                seen += len(items)
                bar.update(len(items))
    return seen, total


async def _batches(url: str, query: str, limit: int | None) -> AsyncGenerator[list[Row]]:
    connection = await AsyncConnection.connect(
        change.patient(url, "merge"), autocommit=True, row_factory=dict_row
    )
    connection.adapters.register_loader("timestamptz", FiniteTimestamp)
    # WITH HOLD: the server keeps the list, and no transaction stays open beside the work.
    async with connection, AsyncRawServerCursor(connection, "items", withhold=True) as cursor:
        await cursor.execute(QUERIES[f"adoption/{query}"])
        left = math.inf if limit is None else limit
        while left and (rows := await cursor.fetchmany(int(min(BATCH, left)))):
            yield rows
            left -= len(rows)


async def _attempt(pool: Pool, items: list[Item], work: Work, how: str = "batch") -> Tally:
    """Do the work in one transaction or, if that fails, in one for each item."""

    async def transaction(connection: Connection) -> Tally:
        await _ask(connection, "lock_timeout", LOCK_TIMEOUT)
        await _ask(connection, "lock_writers_out" if how == "writers locked out" else "lock")
        return await work(connection, items)

    try:
        return await serializable(
            pool,
            transaction,
            seconds=DEADLINES[how],
            attempts=Attempts(),
        )
    except (NoConnection, ReadOnlyDatabase):
        raise
    except (psycopg.Error, Unavailable, Unmergeable) as error:
        refused = len(items) == 1 and not isinstance(error, Unavailable)
        if refused or how == "writers locked out":
            resource, id_ = items[0]
            return Tally(notes=[f"{resource} {id_} stays as it is: {_reason(error)}"])
    total = Tally()
    for item in items:
        total.add(await _attempt(pool, [item], work, NEXT[how]))
    return total


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).partition("\n")[0] or str(error)


async def merge_keys(connection: Connection, items: list[Item]) -> Tally:
    """Merge all rows that share a key with one of the items, which are of one resource."""
    resource = items[0][0]
    for each in KEYS:
        check_references(each, await _ask(connection, "foreign_keys", each))
    rows = await _ask(connection, f"{resource}/surplus", [id_ for _, id_ in items])
    tally = Tally()
    await _merge_rows(connection, resource, [(row["id"], row["kept"]) for row in rows], tally)
    return tally


async def _merge_rows(connection: Connection, resource: str, pairs: Pairs, tally: Tally) -> None:
    if not pairs:
        return
    ids, kept = [id_ for id_, _ in pairs], [kept for _, kept in pairs]
    pointed: dict[int, dict[str, list[int]]] = {}
    for reference in known_references(resource):
        folder = f"{resource}/{reference}"
        # First the rows that would share a key when they point at one row: the guard, if it is on,
        # refuses to make them.
        if f"adoption/{folder}/collisions" in QUERIES:
            table = reference.partition(".")[0]
            rows = await _ask(connection, f"{folder}/collisions", ids, kept)
            colliding = [(row["id"], row["kept"]) for row in rows]
            await _merge_rows(connection, table, colliding, tally)
        for row in await _ask(connection, f"{folder}/repoint", ids, kept):
            pointed.setdefault(row["id"], {})[reference] = row["moved"]
        # A trigger or a policy may have kept a row where it was. A cascade would delete it.
        if await _ask(connection, f"{folder}/left", ids):
            raise Unmergeable(f"{reference} still refers to it")
    removed = await _ask(connection, f"{resource}/remove", ids, kept, Jsonb(pointed))
    if len(removed) < len(ids):
        raise Unmergeable("a trigger, a rule or a policy kept a row from being deleted")
    tally.rows[resource] += len(removed)


async def restore(connection: Connection, items: list[Item]) -> Tally:
    """Put merged rows back, and let what pointed at them point at them again."""
    tally = Tally()
    for resource, id_ in items:
        for row in await _ask(connection, f"{resource}/restore", id_):
            if row["changed"]:
                raise Unmergeable(f"{', '.join(row['changed'])} would not be as before")
            tally.rows[resource] += 1
            for reference, ids in row["pointed"].items():
                query = f"{resource}/{reference}/repoint_back"
                back = await _ask(connection, query, id_, row["kept"], ids)
                if len(back) < len(ids):
                    tally.notes.append(
                        f"{resource} {id_} is back, but {len(ids) - len(back)} of the {len(ids)}"
                        f" rows of {reference} that pointed at it have changed since"
                    )
    return tally


async def _ask(connection: Connection, query: str, *parameters: object) -> list[Row]:
    cursor = await connection.execute(QUERIES[f"adoption/{query}"], parameters)
    return await cursor.fetchall() if cursor.description else []
