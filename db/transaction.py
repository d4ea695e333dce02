"""Transactions that end in a commit, a clear refusal or the deadline, and never in between.

Nothing else in the project knows the SQLSTATEs 40001, 40P01 and 23505.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout, TooManyRequests

from db.pool import Connection, Pool

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]

# Full jitter: a pause is drawn from 0 to PAUSE * 2^retries seconds, at most PAUSE_CAP. PAUSE is
# about what a transaction takes. The cap keeps some twenty attempts in the default deadline even
# where every one of them pauses for the longest time.
PAUSE = 0.002
PAUSE_CAP = 0.25

# Seconds for each step of cleaning up after an attempt that was given up: asking the server to
# cancel its statement, waiting for that, rolling back. One that answers needs milliseconds.
CLEAN_UP_TIMEOUT = 0.5

# Stands for the SQLSTATE where the connection broke before the server could send one.
CONNECTION_FAILURE = "08006"


# Held here, because the event loop does not: an attempt whose caller has left must clean up.
_attempts: set[asyncio.Task[Any]] = set()


@dataclass
class Attempts:
    """What became of the attempts of one request."""

    begun: int = 0
    retried: list[str] = field(default_factory=list)  # the SQLSTATE of each that was run again


class Unavailable(Exception):
    """The database could not serve this request."""

    def __str__(self) -> str:
        return self.__doc__ or ""


class AttemptsExhausted(Unavailable):
    """No attempt succeeded before the deadline."""


class QueueFull(Unavailable):
    """Too many requests are waiting for a database connection."""


class NoConnection(Unavailable):
    """No database connection could be had before the deadline."""


class ReadOnlyDatabase(Unavailable):
    """The database is read-only."""


class SchemaMissing(Unavailable):
    """The tables, or rights on them, are missing: run `python -m db init`."""


async def serializable(
    pool: Pool,
    work: Work[T],
    *,
    seconds: float,
    attempts: Attempts,
    key_constraint: str | None = None,
) -> T:
    """Run `work` in a SERIALIZABLE transaction and return its result, valid because committed.

    The whole transaction runs again, `work` included, after a serialization failure, a deadlock,
    a violation of the unique constraint `key_constraint`, or a broken connection. One that broke
    in COMMIT may have committed, so `work` must be idempotent.

    `seconds` bounds all attempts and the pauses between them; `attempts` is filled as they go.

    Raises Unavailable, or whatever else `work` raises.
    """

    async def attempt(connection: Connection) -> T:
        async with connection.transaction():
            result = await work(connection)
            if connection.closed:
                # psycopg leaves the block without COMMIT, and without an error.
                raise psycopg.OperationalError("the connection broke before COMMIT")
        return result

    return await _until_done(pool, attempt, seconds, attempts, key_constraint)


async def in_pipeline(
    pool: Pool,
    transaction: Work[T],
    *,
    seconds: float,
    attempts: Attempts,
    key_constraint: str | None = None,
) -> T:
    """Run `transaction`, which is a whole one, of db.pipeline: as serializable() does otherwise."""
    return await _until_done(pool, transaction, seconds, attempts, key_constraint)


async def read(pool: Pool, work: Work[T], *, seconds: float) -> T:
    """Run `work`, which only reads, and outside SERIALIZABLE: what it reads is committed.

    Runs again on a broken connection. Arguments and errors are those of serializable().
    """
    return await _until_done(pool, work, seconds, Attempts(), None)


async def _until_done(
    pool: Pool, attempt: Work[T], seconds: float, attempts: Attempts, key_constraint: str | None
) -> T:
    deadline = monotonic() + seconds
    broken = returning = False

    async def with_connection() -> T:
        nonlocal broken, returning
        # Not pool.connection(), whose own COMMIT or ROLLBACK comes after an attempt's.
        connection = await pool.getconn(deadline - monotonic())
        try:
            attempts.begun += 1
            return await attempt(connection)
        finally:
            broken = connection.closed
            returning = True
            await pool.putconn(connection)

    def cancellable() -> bool:
        return not returning  # else the pool would lose the connection

    while True:
        broken = returning = False
        failure: psycopg.Error
        # The try stands around the whole transaction: COMMIT fails with 40001 too.
        try:
            return await _by(deadline, with_connection(), cancellable)
        except (errors.SerializationFailure, errors.DeadlockDetected) as error:
            failure = error
        except errors.UniqueViolation as error:
            if key_constraint is None or error.diag.constraint_name != key_constraint:
                raise
            failure = error  # another creator was first: the next attempt finds its row
        except errors.FeatureNotSupported as error:
            if error.diag.source_function != "RevalidateCachedQuery":
                raise Unavailable from error  # SERIALIZABLE on a standby, for one
            failure = error  # a column has changed its type: the rollback dropped the old plan
        except TimeoutError as error:
            raise (AttemptsExhausted if attempts.begun else NoConnection) from error
        except PoolTimeout as error:
            raise NoConnection from error
        except TooManyRequests as error:
            raise QueueFull from error
        except errors.ReadOnlySqlTransaction as error:
            raise ReadOnlyDatabase from error
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.InsufficientPrivilege) as e:
            raise SchemaMissing from e
        except psycopg.Error as error:
            if not broken:
                if isinstance(error, psycopg.OperationalError):
                    raise Unavailable from error
                raise
            failure = error

        retries = len(attempts.retried)
        pause = random.uniform(0, min(PAUSE_CAP, PAUSE * 2**retries))
        if monotonic() + pause >= deadline:
            raise AttemptsExhausted from failure
        attempts.retried.append(failure.sqlstate or CONNECTION_FAILURE)
        await asyncio.sleep(pause)


async def _by(
    deadline: float, attempt: Coroutine[None, None, T], cancellable: Callable[[], bool]
) -> T:
    """Await an attempt until the deadline; raise TimeoutError then.

    It is a task of its own, because to cancel it means to ask the server. Neither the caller's
    answer nor its cancellation waits for that. The connection goes back to the pool when the task
    is through, idle or closed: closed where the server does not answer in time, which psycopg
    would give ten seconds, and after a silent network the pool would have no connection so long.
    """
    task = asyncio.create_task(attempt)
    _attempts.add(task)
    task.add_done_callback(_forget)

    def give_up() -> None:
        if task.done():
            return
        if cancellable():
            task.cancel()  # psycopg, cancelled while it cancels, closes the connection
        loop.call_later(CLEAN_UP_TIMEOUT, give_up)

    loop = asyncio.get_running_loop()
    try:
        await asyncio.wait({task}, timeout=deadline - monotonic())
    finally:
        give_up()
    if not task.done():
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    _attempts.discard(task)
    if not task.cancelled():
        task.exception()  # seen: else asyncio logs that nobody looked
