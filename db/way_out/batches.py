"""Batches of keys or rows, each in a transaction that is repeated, and split, until it succeeds."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import AsyncRawServerCursor, errors
from tqdm import tqdm

from db.connection import Connection
from db.loaders import load_as_text
from db.pipeline import Row
from db.pool import Pool, open_pool
from db.session import MEANING
from db.settings import Settings
from db.transaction import (
    NoConnection,
    ReadOnlyDatabase,
    SchemaMissing,
    Unavailable,
    interactive,
    transact,
)
from db.way_out import change
from db.way_out.tally import Differ, Item, Tally, Unmergeable

# How many rows the keys of one batch have together: beyond one for each, and those that refer to
# them. They take a twentieth of a second. More would conflict with the service's requests more
# often, and each conflict would repeat more work. A key may have more than that by itself.
ROWS = 500

# How many items are listed at a time. Each of those that work together takes its part of them in
# the order of the list: rows that lie next to each other share pages, and would conflict.
LISTED = 4000

# Into how many parts a batch is split that failed, again and again until an item is alone.
PARTS = 10

# The stages through which an item goes until a transaction succeeds: together with others, then
# alone, and then alone while all other writers wait. Under traffic a key with thousands of rows, or
# of rows that refer to them, may need the last one. It is tried five times, because somebody's long
# transaction may keep us from the lock.
STAGES = ("batch", "alone", *["writers locked out"] * 5)

# Seconds that a transaction may take, including its waits for locks, each of which may take half of
# that. It must be less than the 2.5 seconds for which a request waits for a lock. Half of it must
# be more than the second after which an autovacuum gives way to whoever waits for it.
SECONDS = 2.2


T = TypeVar("T")


class WritersGoOn(Exception):
    """Other writers could create a key that this transaction makes, and must be kept out."""


# It runs in a transaction, and is told whether all other writers are locked out.
Work = Callable[[Connection, list[Item], bool], Awaitable[Tally]]


@dataclass(frozen=True)
class Run:
    """What merge or undo does: the work, and the query that lists the items for it."""

    work: Work
    query: bytes
    parameters: list[object]
    title: str  # of the progress bar
    unit: str  # of the progress bar
    locks: Row  # the row of sql/way_out/lock.sql for the tables that the work changes
    url: str
    seconds: float  # for one transaction
    batch: int  # the most items in one
    together: int = 1  # how many transactions at a time
    merging: bool = True  # whether a writer may refer to a row while it goes
    only_equal: bool = False  # whether keys whose rows differ are left out without a note


async def in_batches(run: Run, limit: float) -> tuple[int, Tally]:
    """Do the work until `limit` items are done; return how many are. Those that stay do not count.

    A limit that counted them would have the next run begin with the same ones again. Raises
    ReadOnlyDatabase, SchemaMissing, NoConnection or psycopg.Error.
    """
    done = 0
    total = Tally()
    settings = Settings(
        database_url=change.patient(run.url, "merge"),
        # One whose transaction ran out of time may not be free at once.
        pool_size=run.together + 1,
        retry_deadline=run.seconds,
    )
    # disable=None shows the bar on a terminal only.
    with tqdm(desc=run.title, unit=run.unit, disable=None) as bar:
        async with open_pool(settings) as pool, _listed(run) as cursor:
            while done < limit and (rows := await cursor.fetchmany(int(min(LISTED, limit - done)))):
                bar.total = min(rows[0]["total"], limit + total.left)
                shares = _parts(rows, math.ceil(len(rows) / run.together))
                works = [_one_after_the_other(pool, run, share, bar) for share in shares]
                for tally in await asyncio.gather(*works, return_exceptions=True):
                    if isinstance(tally, BaseException):
                        raise tally
                    total.add(tally)
                    done -= tally.left
                done += len(rows)
    return done, total


@asynccontextmanager
async def _listed(run: Run) -> AsyncIterator[AsyncRawServerCursor[Row]]:
    """Open a cursor on the list of what is to be done."""
    connection = await Connection.connect(change.patient(run.url, "merge"), autocommit=True)
    await connection.pin(MEANING, await connection.search_path())
    load_as_text(connection.adapters, "jsonb")  # nobody reads the keys
    # WITH HOLD lets the server keep the list without a transaction that stays open during the work.
    async with connection, AsyncRawServerCursor(connection, "items", withhold=True) as cursor:
        await cursor.execute(run.query, run.parameters)
        yield cursor


def _parts(items: list[T], size: int) -> list[list[T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


async def _one_after_the_other(pool: Pool, run: Run, rows: list[Row], bar: tqdm) -> Tally:
    total = Tally()
    for batch in _batches(rows, run.batch):
        total.add(await _attempt(pool, run, batch))
        bar.update(len(batch))
    return total


def _batches(rows: list[Row], most: int) -> Iterator[list[Item]]:
    """Yield batches of at most so many items, and of at most ROWS rows where they have several."""
    batch: list[Item] = []
    size = 0
    for row in rows:
        its = row.get("copies", 2) - 1 + row.get("referring", 0)
        if batch and (len(batch) == most or size + its > ROWS):
            yield batch
            batch, size = [], 0
        batch.append((row["resource"], row["id"]))
        size += its
    yield batch


async def _attempt(
    pool: Pool, run: Run, items: list[Item], stage: int = 0, *, locked: bool = False
) -> Tally:
    """Do the work in one transaction and, if that fails, go on with the next of STAGES.

    Raises ReadOnlyDatabase, SchemaMissing, or NoConnection at the last stage.
    """
    how = STAGES[stage]
    locked = locked or how == "writers locked out"

    async def transaction(connection: Connection) -> Tally:
        load_as_text(connection.adapters)
        # Planning a batch's statements takes as long as running them. A plan that is made once is
        # for few rows, and so an item alone, which may have thousands, gets plans of its own.
        connection.prepare_threshold = 1 if len(items) > 1 else None
        # The lock comes first, so that the snapshot is younger than the lock.
        await connection.execute(run.locks["alone" if locked else "shared"].encode())
        return await run.work(connection, items, locked)

    try:
        return await transact(pool, interactive(transaction), seconds=run.seconds)
    except WritersGoOn:
        return await _attempt(pool, run, items, stage, locked=True)
    except (ReadOnlyDatabase, SchemaMissing):
        raise
    except (psycopg.Error, Unavailable, Unmergeable) as error:
        # A writer who is not locked out may have referred to a row that goes, since the snapshot.
        late = isinstance(error, errors.ForeignKeyViolation) and run.merging and not locked
        refused = len(items) == 1 and not (late or isinstance(error, Unavailable))
        last = stage + 1 == len(STAGES)
        if last and isinstance(error, NoConnection):
            raise
        if refused or last:
            resource, id_ = items[0]
            if run.only_equal and isinstance(error, Differ):
                return Tally(differ=Counter({resource: 1}), left=1)
            return Tally(notes=[f"{resource} {id_} stays as it is: {_reason(error)}"], left=1)
    if locked:
        await asyncio.sleep(random.uniform(0.5, 1) * run.seconds)  # the writers that waited go on
    total = Tally()
    for part in _parts(items, max(1, len(items) // PARTS)):
        alone = len(part) == 1
        total.add(await _attempt(pool, run, part, stage + 1 if alone else stage, locked=locked))
    return total


def _reason(error: Exception) -> str:
    if isinstance(error, Unavailable):
        cause = str(error.__cause__).partition("\n")[0]
        return f"{cause or error} (see --seconds)"
    reason = str(error).partition("\n")[0]
    if isinstance(error, psycopg.IntegrityError) and error.diag.message_detail:
        reason += f" ({error.diag.message_detail.rstrip('.')})"  # it names the row in the way
    return reason
