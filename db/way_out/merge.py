"""Merge: keeps one of the rows that share a key, and points at it what referred to the others."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import psycopg
from psycopg import AsyncRawCursor, AsyncRawServerCursor, errors
from psycopg.rows import dict_row
from tqdm import tqdm

from db.connection import Connection, Row
from db.loaders import TimeOfDay
from db.pool import Pool, open_pool
from db.resources import RESOURCES, Resource
from db.session import MEANING
from db.settings import Settings
from db.texts import say
from db.transaction import (
    NoConnection,
    ReadOnlyDatabase,
    SchemaMissing,
    Unavailable,
    interactive,
    transact,
)
from db.way_out import change
from db.way_out.change import Refused, with_cause
from db.way_out.enforce import refuse_enforced
from db.way_out.guard import refuse_guarded
from db.way_out.moves import (
    Differ,
    Item,
    Tally,
    Unmergeable,
    children,
    differing,
    family,
    is_absorbed,
    merge_rows,
    obstructed,
    restore,
    rows_of,
    tables,
)
from db.way_out.references import (
    check,
    check_absorbed,
    check_columns,
    check_references,
    check_tables,
    held_against,
    nothing_of,
    unindexed,
)

# How many keys one transaction merges where nothing refers to the rows, and where rows do, each of
# which takes time, too. Most of the time of small batches goes into COMMIT and round trips. More
# keys would conflict with the service's requests more often, and each conflict would repeat more
# work. A server that can lock fewer pages one by one gets smaller batches.
BATCH = 100
REFERRED_BATCH = 20

# How many batches are merged at a time: one is at work in the server while the other is here. Undo
# takes one, because its order counts.
TOGETHER = 2

# How many batches in a row each of them takes. Rows that lie next to each other would conflict, and
# so the two are not at work on batches that follow each other in the list.
SHARE = 10

# Into how many parts a batch is split that failed, again and again until a key is alone.
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

# How often merge goes through all duplicates. A key is left out of a pass if the row that was to be
# kept is deleted before its turn. Duplicates after three passes are new ones, which somebody makes
# without the guard.
PASSES = 3

# The types of ids that are loaded as text, because str() of psycopg's values is not what PostgreSQL
# writes.
MOMENTS = ("date", "time", "timestamp", "timestamptz")


class WritersGoOn(Exception):
    """Other writers could create a key that this transaction makes, and must be kept out."""


Work = Callable[[Connection, list[Item]], Awaitable[Tally]]  # it runs in a transaction


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
    only_equal: bool = False  # whether keys whose rows differ are left out


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
    before = _counts(url)
    async with _pool(url, seconds) as pool:
        for name in names:
            try:
                left -= await _merge_one(pool, url, name, left, seconds, but, total)
            except (Refused, SchemaMissing, psycopg.ProgrammingError) as error:
                total.refused.append(f"{name}: {with_cause(error)}")
    total.rows = _counts(url) - before
    return total


def _counts(url: str) -> Counter[str]:
    """Return how many rows are in the table merged, by resource. Raises Refused if it is not there.

    What a command has done is told by them, because it may not hear that a transaction committed.
    """
    with change.connect(url, "merge") as connection:
        try:
            rows = change.ask(connection, "way_out/merged_counts")
        except errors.UndefinedTable:
            raise Refused("there is no table merged: run `python -m db init` first") from None
    return Counter({row["resource"]: row["removed"] for row in rows})


async def _merge_one(
    pool: Pool,
    url: str,
    name: str,
    limit: float,
    seconds: float,
    but: list[str] | None,
    total: Tally,
) -> int:
    """Merge at most `limit` keys of one resource, add to `total`, and return how many they were.

    The keys that stay as they are do not count.
    """
    with change.connect(url, "merge") as connection:
        check(connection, name)
        locks = _locks(connection, family(name))
        pages = change.ask(connection, "pages")[0]["pages"]
        for line in unindexed(connection, name):
            say(line)
    query = change.sql_of(f"{name}/duplicates")
    equal = but is not None
    work = partial(merge_keys, but=but) if equal else merge_keys
    most = REFERRED_BATCH if RESOURCES[name].references else BATCH
    batch = max(1, min(most, pages))
    run = Run(work, query, [], name, " keys", locks, url, seconds, batch, TOGETHER, equal)
    done = 0
    tally = Tally()
    for _ in range(PASSES):
        if done >= limit:
            break
        more, tally = await _in_batches(pool, run, limit - done)
        done += more
        if not tally.rows:
            break
    # Only the notes of the last pass are told, because a later pass may merge what one has left.
    total.notes += tally.notes
    total.differ += tally.differ
    return done


async def undo(
    url: str, limit: int | None, seconds: float = SECONDS, names: Iterable[str] = RESOURCES
) -> Tally:
    """Put back the rows that were merged, the last one first, at most `limit` rows.

    The Tally is that of merge(). Raises Refused if a file is missing, Unavailable or psycopg.Error;
    what was committed by then stays put back.
    """
    able: list[str] = []
    refused = Tally()
    before = _counts(url)
    with change.connect(url, "merge") as connection:
        for name in names:
            try:
                check_tables(connection, family(name))
                for resource in family(name):
                    refuse_guarded(connection, resource)
                    refuse_enforced(connection, resource)
                able.append(name)
            except Refused as error:
                refused.refused.append(f"{name}: {error}")
        locks = _locks(connection, [each for name in able for each in family(name)])
    query = change.sql_of("way_out/merged_last_first")
    moved = [f"{name}/{each}" for name in able for each in RESOURCES[name].references]
    run = Run(
        restore, query, [able + moved], "merged", " rows", locks, url, seconds, REFERRED_BATCH
    )
    if able:
        async with _pool(url, seconds) as pool:
            _, tally = await _in_batches(pool, run, math.inf if limit is None else limit)
        refused.add(tally)
    refused.rows = before - _counts(url)
    return refused


def _locks(connection: change.Session, resources: list[Resource]) -> Row:
    return change.ask(connection, "way_out/lock", tables(resources))[0]


def _pool(url: str, seconds: float) -> AbstractAsyncContextManager[Pool]:
    """Return a pool with the service's session settings, and these seconds for a transaction.

    It has one more connection than transactions, because one whose transaction ran out of time may
    not be free at once.
    """
    patient = change.patient(url, "merge")
    return open_pool(Settings(database_url=patient, pool_size=TOGETHER + 1, retry_deadline=seconds))


async def _in_batches(pool: Pool, run: Run, limit: float) -> tuple[int, Tally]:
    """Do the work until `limit` items are done; return how many are. Those that stay do not count.

    A limit that counted them would have the next run begin with the same ones again.
    """
    done = 0
    total = Tally()
    most = run.batch * run.together * SHARE
    # disable=None shows the bar on a terminal only.
    with tqdm(desc=run.title, unit=run.unit, disable=None) as bar:
        async with _listed(run) as cursor:
            while done < limit and (rows := await cursor.fetchmany(int(min(most, limit - done)))):
                bar.total = min(rows[0]["total"], limit + total.left)
                items = [(row["resource"], row["id"]) for row in rows]
                shares = _parts(items, math.ceil(len(items) / run.together))
                works = [_one_after_the_other(pool, run, share, bar) for share in shares]
                for tally in await asyncio.gather(*works, return_exceptions=True):
                    if isinstance(tally, BaseException):
                        raise tally
                    total.add(tally)
                    done -= tally.left
                done += len(items)
    return done, total


async def _one_after_the_other(pool: Pool, run: Run, items: list[Item], bar: tqdm) -> Tally:
    total = Tally()
    for batch in _parts(items, run.batch):
        total.add(await _attempt(pool, run, batch))
        bar.update(len(batch))
    return total


def _parts(items: list[Item], size: int) -> list[list[Item]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


@asynccontextmanager
async def _listed(run: Run) -> AsyncIterator[AsyncRawServerCursor[Row]]:
    """Open a cursor on the list of what is to be done."""
    connection = await Connection.connect(
        change.patient(run.url, "merge"),
        autocommit=True,
        cursor_factory=AsyncRawCursor,
        row_factory=dict_row,
    )
    await connection.pin(MEANING, await connection.search_path())
    _load_moments_as_text(connection)
    # WITH HOLD lets the server keep the list without a transaction that stays open during the work.
    async with connection, AsyncRawServerCursor(connection, "items", withhold=True) as cursor:
        await cursor.execute(run.query, run.parameters)
        yield cursor


def _load_moments_as_text(connection: Connection) -> None:
    for type_ in MOMENTS:
        connection.adapters.register_loader(type_, TimeOfDay)


async def _attempt(
    pool: Pool, run: Run, items: list[Item], stage: int = 0, *, locked: bool = False
) -> Tally:
    """Do the work in one transaction and, if that fails, go on with the next of STAGES.

    Raises ReadOnlyDatabase, SchemaMissing, or NoConnection at the last stage.
    """
    how = STAGES[stage]
    locked = locked or how == "writers locked out"

    async def transaction(connection: Connection) -> Tally:
        _load_moments_as_text(connection)
        # The lock comes first, so that the snapshot is younger than the lock.
        await connection.execute(run.locks["alone" if locked else "shared"].encode())
        if run.work is not restore and not locked:
            await _check_guarded(connection, items[0][0])
        return await run.work(connection, items)

    try:
        return await transact(pool, interactive(transaction), seconds=run.seconds)
    except WritersGoOn:
        return await _attempt(pool, run, items, stage, locked=True)
    except (ReadOnlyDatabase, SchemaMissing):
        raise
    except (psycopg.Error, Unavailable, Unmergeable) as error:
        # A writer who is not locked out may have referred to a row that goes, since the snapshot.
        violated = isinstance(error, errors.ForeignKeyViolation)
        late = violated and run.work is not restore and not locked
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
    parts = _parts(items, max(1, len(items) // PARTS))
    for part in parts:
        alone = len(part) == 1
        total.add(await _attempt(pool, run, part, stage + 1 if alone else stage, locked=locked))
    return total


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


def _reason(error: Exception) -> str:
    if isinstance(error, Unavailable):
        cause = str(error.__cause__).partition("\n")[0]
        return f"{cause or error} (see --seconds)"
    reason = str(error).partition("\n")[0]
    if isinstance(error, psycopg.IntegrityError) and error.diag.message_detail:
        reason += f" ({error.diag.message_detail.rstrip('.')})"  # it names the row in the way
    return reason


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
