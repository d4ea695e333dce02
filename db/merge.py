"""Merge: of the rows that share a key one stays, and what pointed at the others points at it."""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import islice

import psycopg
from psycopg import AsyncRawCursor, AsyncRawServerCursor
from psycopg.rows import dict_row
from tqdm import tqdm

from db import change
from db.adoption import (
    KEYS,
    check_references,
    duplicates,
    key_text,
    known_references,
    refuse_guarded,
    refuse_relatives,
)
from db.kind import check_referring
from db.moves import Item, Tally, Unmergeable, ask, merge_rows, restore
from db.pool import Connection, FiniteTimestamp, Pool, Row, open_pool
from db.queries import QUERIES
from db.session import MEANING
from db.settings import Settings
from db.texts import say
from db.transaction import (
    Attempts,
    NoConnection,
    ReadOnlyDatabase,
    SchemaMissing,
    Unavailable,
    serializable,
)

# Keys in one transaction. One by one they make 500 a second, by 20 some 7,000: the time goes into
# COMMIT and round trips. More would meet the service's requests more often, and repeat more work.
BATCH = 20

# How a transaction is tried, until it succeeds: with all items of a batch, with each alone, and
# alone with all other writers kept out, as a key with thousands of rows, or employees, may need
# under traffic. Someone's long transaction may keep us from that lock, so we ask more than once.
STAGES = ("batch", "alone", *["writers locked out"] * 5)

# Seconds that a transaction may take, waiting for locks included, half of it for one. A request
# waits for a lock for 2.5; only who waits for more than 1 makes an autovacuum give way.
SECONDS = 2.2

# Times to go through all duplicates: a key is left out if the row that was to be kept is deleted
# before its turn. Who finds more after that is up against a writer without a guard.
PASSES = 3

# Keys shown of what merge would do, and rows of each.
EXAMPLES = 5


class WritersGoOn(Exception):
    """Other writers could take a key that this transaction makes: they must be kept out."""


Work = Callable[[Connection, list[Item]], Awaitable[Tally]]  # in a transaction


def plan(connection: change.Connection) -> None:
    """Print what merge would do. Raises Refused."""
    _check_tables(connection)
    for resource in KEYS:
        check_references(resource, change.ask(connection, "adoption/foreign_keys", resource))
        totals = change.ask(connection, f"{resource}/plan")[0]
        referring = totals["referring"]
        say(
            f"{resource}: {totals['keys']:,} keys would keep their lowest id,"
            f" {totals['removed']:,} rows would go"
            + (f", {referring:,} rows refer to those." if referring else ".")
        )
        for key in islice(duplicates(connection, resource), EXAMPLES):
            pairs = change.ask(connection, f"{resource}/surplus", [key["id"]])
            going = ", ".join(str(pair["id"]) for pair in pairs[:EXAMPLES])
            more = f" and {len(pairs) - EXAMPLES:,} more" if len(pairs) > EXAMPLES else ""
            say(f"  {key_text(key)}: {key['id']} stays, {going}{more} would go")


async def merge(url: str, limit: int | None, seconds: float = SECONDS) -> Tally:
    """Merge all keys that several rows share, or the first `limit` keys, the worst first.

    A key that takes more than `seconds` stays as it is.

    Raises Refused, Unavailable or psycopg.Error; what was committed by then stays merged.
    """
    with change.connect(url, "merge") as connection:
        _check_tables(connection)
    total = Tally()
    async with _pool(url, seconds) as pool:
        for resource in KEYS:
            tally = Tally()
            for _ in range(PASSES):
                if limit == 0:
                    break
                query = f"{resource}/duplicates"
                seen, tally = await _in_batches(
                    pool, url, query, limit, seconds, merge_keys, resource
                )
                total.rows += tally.rows
                if limit is not None:
                    limit -= seen
                if not tally.rows:
                    break
            total.notes += tally.notes  # of the last pass: an earlier one's may be merged since
    return total


async def undo(url: str, limit: int | None, seconds: float = SECONDS) -> Tally:
    """Put back what was merged, or the last `limit` rows of it, the last first.

    Raises Refused, Unavailable or psycopg.Error; what was committed by then stays put back.
    """
    with change.connect(url, "merge") as connection:
        _check_tables(connection)
        refuse_guarded(connection)
    async with _pool(url, seconds) as pool:
        _, tally = await _in_batches(
            pool, url, "adoption/merged_last_first", limit, seconds, restore, "merged"
        )
    return tally


def _check_tables(connection: change.Connection) -> None:
    """Raise Refused unless rows can be moved out of these tables, and back, whole."""
    refuse_relatives(connection)
    for resource in KEYS:
        for reference in known_references(resource):
            check_referring(
                reference, change.ask(connection, "adoption/kind", reference.rpartition(".")[0])
            )


def _pool(url: str, seconds: float) -> AbstractAsyncContextManager[Pool]:
    """Connections set up as the service's are, with these seconds for a transaction.

    Two, because one on which a transaction ran out of time may take a while to be free again.
    """
    patient = change.patient(url, "merge")
    return open_pool(Settings(database_url=patient, pool_size=2, retry_deadline=seconds))


async def _in_batches(
    pool: Pool, url: str, query: str, limit: int | None, seconds: float, work: Work, title: str
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
                total.add(await _attempt(pool, items, seconds, work))
                seen += len(items)
                bar.update(len(items))
    return seen, total


async def _batches(url: str, query: str, limit: int | None) -> AsyncGenerator[list[Row]]:
    connection = await Connection.connect(
        change.patient(url, "merge"),
        autocommit=True,
        cursor_factory=AsyncRawCursor,
        row_factory=dict_row,
    )
    await connection.pin(MEANING, await connection.search_path())
    connection.adapters.register_loader("timestamptz", FiniteTimestamp)
    # WITH HOLD: the server keeps the list, and no transaction stays open beside the work.
    async with connection, AsyncRawServerCursor(connection, "items", withhold=True) as cursor:
        await cursor.execute(QUERIES[query])
        left = math.inf if limit is None else limit
        while left and (rows := await cursor.fetchmany(int(min(BATCH, left)))):
            yield rows
            left -= len(rows)


async def _attempt(
    pool: Pool,
    items: list[Item],
    seconds: float,
    work: Work,
    stage: int = 0,
    *,
    locked: bool = False,
) -> Tally:
    """Do the work in one transaction or, if that fails, in the next of STAGES."""
    how = STAGES[stage]
    locked = locked or how == "writers locked out"

    async def transaction(connection: Connection) -> Tally:
        # First, so that the snapshot is younger than the lock.
        await ask(connection, "adoption/lock_writers_out" if locked else "adoption/lock")
        if work is merge_keys and not locked:
            await _check_guarded(connection, items[0][0])
        return await work(connection, items)

    try:
        return await serializable(pool, transaction, seconds=seconds, attempts=Attempts())
    except WritersGoOn:
        return await _attempt(pool, items, seconds, work, stage, locked=True)
    except (ReadOnlyDatabase, SchemaMissing):
        raise
    except (psycopg.Error, Unavailable, Unmergeable) as error:
        refused = len(items) == 1 and not isinstance(error, Unavailable)
        last = stage + 1 == len(STAGES)
        if last and isinstance(error, NoConnection):
            raise
        if refused or last:
            resource, id_ = items[0]
            return Tally(notes=[f"{resource} {id_} stays as it is: {_reason(error)}"])
    if locked:
        await asyncio.sleep(random.uniform(0.5, 1) * seconds)  # who waited for us goes on
    total = Tally()
    for item in items:
        total.add(await _attempt(pool, [item], seconds, work, stage + 1, locked=locked))
    return total


async def _check_guarded(connection: Connection, resource: str) -> None:
    """Raise WritersGoOn if to merge makes keys, and the guard does not watch over them.

    An employee who comes to another department gets a new key. Whoever creates that key meanwhile
    meets us in a row of the guard's. Without it only our predicate locks would tell, and PostgreSQL
    forgets those of transactions that ended while a longer one goes on.
    """
    folder = f"{resource}/"
    if any(path.startswith(folder) and path.endswith("/collisions") for path in QUERIES):
        for each in KEYS:
            if (await ask(connection, "adoption/guard_status", each))[0]["status"] != "on":
                raise WritersGoOn


def _reason(error: Exception) -> str:
    if isinstance(error, Unavailable):
        cause = str(error.__cause__).partition("\n")[0]
        return f"{cause or error} (see --seconds)"
    return str(error).partition("\n")[0]


async def merge_keys(connection: Connection, items: list[Item]) -> Tally:
    """Merge all rows that share a key with one of the items, which are of one resource."""
    resource = items[0][0]
    for each in KEYS:
        check_references(each, await ask(connection, "adoption/foreign_keys", each))
    rows = await ask(connection, f"{resource}/surplus", [id_ for _, id_ in items])
    tally = Tally()
    await merge_rows(connection, resource, [(row["id"], row["kept"]) for row in rows], tally)
    return tally
