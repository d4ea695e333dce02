"""Merge: of the rows that share a key one stays, and what pointed at the others points at it."""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from itertools import islice

import psycopg
from psycopg import AsyncRawServerCursor
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb
from tqdm import tqdm

from db import adoption
from db.adoption import KEYS, known_references, refuse_unknown
from db.pool import Connection, Pool, Row, open_pool
from db.queries import QUERIES
from db.settings import Settings
from db.transaction import Attempts, AttemptsExhausted, serializable

# Keys in one transaction. One by one they make 500 a second, by 20 some 7,000: the time goes into
# COMMIT and round trips. More would meet the service's requests more often, and repeat more work.
BATCH = 20

# Seconds for one transaction with its retries. A batch that fails is done key by key, and one key
# may have very many rows, or employees.
BATCH_DEADLINE = 10.0
DEADLINE = 60.0

# Keys shown of what merge would do, and rows of each.
EXAMPLES = 5

Pairs = list[tuple[int, int]]  # the id of a row that goes, and the id of the one that stays
Item = tuple[str, int]  # a resource and an id


@dataclass
class Outcome:
    """What became of some items."""

    rows: Counter[str] = field(default_factory=Counter)  # how many were moved, by resource
    notes: list[str] = field(default_factory=list)  # what was not, or not wholly, and why

    def add(self, other: "Outcome") -> None:
        self.rows += other.rows
        self.notes += other.notes


Work = Callable[[Connection, list[Item]], Awaitable[Outcome]]


def plan(connection: adoption.Connection) -> None:
    """Print what merge would do. Raises Refused."""
    for resource in KEYS:
        refuse_unknown(
            adoption.ask(connection, "foreign_keys", resource, known_references(resource))
        )
        totals = adoption.ask(connection, f"{resource}/plan")[0]
        print(
            f"{resource}: {totals['keys']:,} keys would keep their lowest id,"
            f" {totals['removed']:,} rows would go, {totals['referring']:,} rows point at those."
        )
        for key in islice(adoption.duplicates(connection, resource), EXAMPLES):
            pairs = adoption.ask(connection, f"{resource}/surplus", [key["id"]])
            going = ", ".join(str(pair["id"]) for pair in pairs[:EXAMPLES])
            more = f" and {len(pairs) - EXAMPLES:,} more" if len(pairs) > EXAMPLES else ""
            print(f"  {adoption.key_text(key)}: {key['id']} stays, {going}{more} would go")


async def merge(url: str, limit: int | None) -> Outcome:
    """Merge all keys that several rows share, or the first `limit` keys, the worst first.

    Raises Refused, Unavailable or psycopg.Error; what was committed by then stays merged.
    """
    total = Outcome()
    async with _pool(url) as pool:
        for resource in KEYS:
            while limit is None or limit > 0:
                query = f"{resource}/duplicates"
                seen, outcome = await _in_batches(pool, query, limit, merge_keys, resource)
                total.rows += outcome.rows
                if limit is not None:
                    limit -= seen
                # Again: meanwhile a row that was to be kept may have been deleted, which left the
                # others as they were.
                if not outcome.rows:
                    total.notes += outcome.notes
                    break
    return total


async def undo(url: str, limit: int | None) -> Outcome:
    """Put back what was merged, or the last `limit` rows of it, the last first.

    Raises Refused, Unavailable or psycopg.Error; what was committed by then stays put back.
    """
    with adoption.connect(url, "merge") as connection:
        adoption.refuse_guarded(connection)
    async with _pool(url) as pool:
        _, outcome = await _in_batches(pool, "steps_back", limit, restore, "merged")
    return outcome


def _pool(url: str) -> AbstractAsyncContextManager[Pool]:
    """Connections set up as the service's, with more time: one to work, one to read the list."""
    settings = Settings(
        database_url=make_conninfo(url, application_name="onerow merge"),
        pool_size=2,
        retry_deadline=DEADLINE,
    )
    return open_pool(settings)


async def _in_batches(
    pool: Pool, query: str, limit: int | None, work: Work, title: str
) -> tuple[int, Outcome]:
    """Do the work on what a query lists, BATCH items in a transaction; return how many it was."""
    seen = 0
    total = Outcome()
    unit = " keys" if work is merge_keys else " rows"
    batches = _batches(pool, query, limit)
    async with aclosing(batches):
        with tqdm(desc=title, unit=unit, disable=None) as bar:  # on a terminal only
            async for rows in batches:
                bar.total = min(rows[0]["total"], math.inf if limit is None else limit)
                items = [(row["resource"], row["id"]) for row in rows]
                total.add(await _attempt(pool, items, work))
                seen += len(items)
                bar.update(len(items))
    return seen, total


async def _batches(pool: Pool, query: str, limit: int | None) -> AsyncGenerator[list[Row]]:
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        # WITH HOLD: the server keeps the list, and no transaction stays open beside the work.
        async with AsyncRawServerCursor(connection, "items", withhold=True) as cursor:
            await cursor.execute(QUERIES[f"adoption/{query}"])
            left = math.inf if limit is None else limit
            while left and (rows := await cursor.fetchmany(int(min(BATCH, left)))):
                yield rows
                left -= len(rows)


async def _attempt(pool: Pool, items: list[Item], work: Work) -> Outcome:
    """Do the work in one transaction or, if that fails, in one for each item."""
    alone = len(items) == 1
    try:
        return await serializable(
            pool,
            lambda connection: work(connection, items),
            seconds=DEADLINE if alone else BATCH_DEADLINE,
            attempts=Attempts(),
        )
    except (psycopg.Error, AttemptsExhausted) as error:
        if alone:
            return Outcome(notes=[f"{items[0][0]} {items[0][1]} stays as it is: {_reason(error)}"])
    total = Outcome()
    for item in items:
        total.add(await _attempt(pool, [item], work))
    return total


def _reason(error: Exception) -> str:
    if isinstance(error, AttemptsExhausted):
        return f"{error} Its last failure: {error.__cause__}"
    return str(error).partition("\n")[0]


async def merge_keys(connection: Connection, items: list[Item]) -> Outcome:
    """Merge all rows that share a key with one of the items, which are of one resource."""
    resource = items[0][0]
    await _ask(connection, "lock")  # before the snapshot, so that the next query sees all
    for each in KEYS:
        refuse_unknown(await _ask(connection, "foreign_keys", each, known_references(each)))
    rows = await _ask(connection, f"{resource}/surplus", [id_ for _, id_ in items])
    outcome = Outcome()
    await _merge_rows(connection, resource, [(row["id"], row["kept"]) for row in rows], outcome)
    return outcome


async def _merge_rows(
    connection: Connection, resource: str, pairs: Pairs, outcome: Outcome
) -> None:
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
            await _merge_rows(connection, table, colliding, outcome)
        for row in await _ask(connection, f"{folder}/repoint", ids, kept):
            pointed.setdefault(row["id"], {})[reference] = row["moved"]
    removed = await _ask(connection, f"{resource}/remove", ids, kept, Jsonb(pointed))
    assert len(removed) == len(ids), "a row that was read is there until we commit"
    outcome.rows[resource] += len(removed)


async def restore(connection: Connection, items: list[Item]) -> Outcome:
    """Put merged rows back, and let what pointed at them point at them again."""
    outcome = Outcome()
    for resource, id_ in items:
        for row in await _ask(connection, f"{resource}/restore", id_):
            outcome.rows[resource] += 1
            for reference, ids in row["pointed"].items():
                query = f"{resource}/{reference}/point_back"
                back = await _ask(connection, query, id_, row["kept"], ids)
                if len(back) < len(ids):
                    outcome.notes.append(
                        f"{resource} {id_} is back, but {len(ids) - len(back)} of the {len(ids)}"
                        f" rows of {reference} that pointed at it have changed since"
                    )
    return outcome


async def _ask(connection: Connection, query: str, *parameters: object) -> list[Row]:
    cursor = await connection.execute(QUERIES[f"adoption/{query}"], parameters)
    return await cursor.fetchall() if cursor.description else []
