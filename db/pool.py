"""The connections of one worker: psycopg's pool makes them, and a queue here hands them on."""

import asyncio
import os
from asyncio import Future
from collections import deque
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Self

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from db.connection import Connection
from db.engine import POSTGRESQL, named
from db.loaders import LOADERS
from db.resources import ROOT
from db.session import conninfo, engine_of, timeouts
from db.settings import Settings

TIMELINE = (ROOT / "sql" / "timeline.sql").read_bytes()

# Seconds for which psycopg's pool tries to replace a lost connection. After that it tries again
# when a request waits for one, so that connections are back as soon as the database is.
RECONNECT_TIMEOUT = 0.5

# Seconds for which a connection is handed from one request to the next. Then it goes back to
# psycopg's pool, which replaces it if it is an hour old.
KEPT = 60.0

# Seconds to wait for a connection of psycopg's pool. They are a year, because there is nothing to
# do but wait.
FOREVER = 365 * 86400.0


class Pool:
    """A fixed number of connections, and the requests that wait for one, the first come first.

    psycopg's own queue takes a lock and a task for each request, a fifth of the processor time that
    a request's transaction takes.
    """

    def __init__(self, url: str, *, queue: int, kept: float = KEPT, **options: Any) -> None:
        """`options` are those of psycopg's pool, which makes the connections.

        `queue` is how many requests may wait; those beyond it are refused at once. After `kept`
        seconds a connection goes back to psycopg's pool, which resets it, or replaces it.
        """
        self._source = AsyncConnectionPool(
            url,
            connection_class=Connection,
            reconnect_timeout=RECONNECT_TIMEOUT,
            reconnect_failed=self._reconnect,
            open=False,
            **options,
        )
        self.size = self._source.max_size
        self.missing = 0  # connections that are being made
        self.timeouts = 0  # how often a connection was waited for in vain
        self.served = 0  # how many times transact() has succeeded; it counts them
        self._queue = queue
        self._kept = kept
        self._begun = 0  # connections that psycopg's pool was asked for
        self._idle: deque[Connection] = deque()
        self._waiting: dict[Future[Connection], None] = {}
        self._waiting_again: dict[Future[Connection], None] = {}  # those that had one before
        self._closed = False
        self._drained = 0.0  # by monotonic(): connections that were made earlier are replaced
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> int:
        """How many connections nobody has."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._waiting) + len(self._waiting_again)

    async def __aenter__(self) -> Self:
        """Begin to make the connections, without waiting for them."""
        await self._source.open()
        for _ in range(self._source.min_size):
            self._begin_another()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them; one that is still in use closes when it is given back."""
        self._closed = True
        while self._idle:
            self._begin(self._replace(self._idle.pop()))
        try:
            await self._source.close()
        except asyncio.CancelledError:
            # When the process ends at once, psycopg's tasks are cancelled, too, and answer no more.
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            raise
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def take(self, seconds: float, *, again: bool = False) -> Connection:
        """Take a connection, waiting for one up to `seconds`.

        A request that had one, and needs one `again`, comes first and is never refused, because it
        has waited before. Raises PoolTimeout, or TooManyRequests if the queue is full.
        """
        if seconds <= 0:
            raise PoolTimeout
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
            self._begin(self._replace(connection))
        if len(self._waiting) >= self._queue and not again:
            raise TooManyRequests
        if self._begun < self.size:
            self._begin_another()
        elif self.missing:
            self._begin(self._source.check())  # psycopg's pool may have given up
        loop = asyncio.get_running_loop()
        waiter: Future[Connection] = loop.create_future()
        waiting = self._waiting_again if again else self._waiting
        waiting[waiter] = None
        timer = loop.call_later(seconds, self._give_up, waiter)  # asyncio.timeout() takes longer
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())  # it came too late
            raise
        finally:
            waiting.pop(waiter, None)
            timer.cancel()

    def _give_up(self, waiter: Future[Connection]) -> None:
        if not waiter.done():
            self.timeouts += 1
            waiter.set_exception(PoolTimeout())

    def give_back(self, connection: Connection) -> None:
        """Hand a connection on to the request that has waited longest, or keep it for the next."""
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.finish()  # in psycopg's pool it would get a ROLLBACK, without a deadline
        if self._closed:  # no task may begin now, because __aexit__() has waited for them
            connection.finish()
            return
        if (
            connection.closed
            or connection.made <= self._drained
            or connection.taken < monotonic() - self._kept
        ):
            self._begin(self._replace(connection))
        else:
            self._hand_on(connection)

    async def drain(self) -> None:
        """Replace all connections, each when its request is through with it."""
        self._drained = monotonic()
        await self._source.drain()
        while self._idle:
            self._begin(self._replace(self._idle.pop()))

    async def _reconnect(self, _source: AsyncConnectionPool[Any]) -> None:
        """If a request waits, let psycopg's pool, which gave up, try again for a connection."""
        if self.waiting:
            await self._source.check()

    def _hand_on(self, connection: Connection) -> None:
        while waiting := self._waiting_again or self._waiting:
            waiter = next(iter(waiting))
            del waiting[waiter]
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_another(self) -> None:
        self._begun += 1
        self._begin(self._fetch())

    async def _replace(self, connection: Connection) -> None:
        """Give a connection to psycopg's pool, and take it, or a new one, from there."""
        await self._source.putconn(connection)
        if connection.silent:
            # The server may have gone silent on the others, too, and each would cost a request.
            await self.drain()
        await self._fetch()

    async def _fetch(self) -> None:
        """Take a connection from psycopg's pool, as soon as there is one."""
        self.missing += 1
        try:
            while (
                connection := await self._source.getconn(FOREVER)
            ).made <= self._drained or self._closed:
                # drain(), or the end, came while it was on its way here, and psycopg's pool may not
                # know yet. At the end that pool has no other.
                connection.finish()
                await self._source.putconn(connection)
        except PoolClosed:
            return
        finally:
            self.missing -= 1
        connection.taken = monotonic()
        self._hand_on(connection)


class FormerPrimary(psycopg.OperationalError):
    """Another server was promoted in the place of this one."""


def open_pool(settings: Settings) -> Pool:
    """Make the pool; `async with` opens it, without waiting for the database."""
    url = conninfo(settings)
    hosts = str(conninfo_to_dict(url).get("host") or os.environ.get("PGHOST"))
    # All hosts of a distributed engine take writes.
    former_primaries = "," in hosts and engine_of(settings) is POSTGRESQL
    latest = 0

    async def configure(connection: Connection) -> None:
        nonlocal latest
        await _configure(settings, connection)
        if not former_primaries:
            return
        row = await (await connection.execute(TIMELINE, prepare=False)).fetchone()
        assert row is not None
        seen, latest = latest, max(latest, row["timeline"])
        if row["timeline"] < seen:
            # A former primary that does not know of the new one takes writes that will be lost.
            await connection.close()
            raise FormerPrimary("another server was promoted in the place of this one")
        if 0 < seen < latest:
            await pool.drain()  # the others may be to the former primary

    pool = Pool(
        url,
        queue=settings.pool_queue,
        min_size=settings.pool_size,
        kwargs={
            # Outside conn.transaction() a statement is its own READ COMMITTED transaction.
            "autocommit": True,
            # Once psycopg has prepared anything, it runs DEALLOCATE ALL after a ROLLBACK, which
            # would drop what requests have prepared.
            "prepare_threshold": None,
        },
        configure=configure,
        name="onerow",
    )
    return pool


async def _configure(settings: Settings, connection: Connection) -> None:
    if settings.engine is None:  # the server could not be asked when the service started
        engine = named(connection.pgconn.parameter_status)
        if engine != "postgresql":
            await connection.close()
            raise psycopg.OperationalError(f"the server is another engine: set ENGINE={engine}")
    connection.engine = engine_of(settings)
    connection.pipeline_mode = settings.pipeline
    if connection.engine is POSTGRESQL:
        connection.unpinned = settings
    elif settings.pooler:
        connection.begin_with(timeouts(settings), None)
    # psycopg writes the level into every BEGIN. A SET TRANSACTION would end with its transaction,
    # and the next attempt would run at READ COMMITTED.
    await connection.set_isolation_level(IsolationLevel.SERIALIZABLE)
    # psycopg would send 7 as smallint and 70000 as integer, and each would get a plan of its own.
    connection.adapters.register_dumper(int, Int8Dumper)
    for type_, loader in LOADERS.items():
        connection.adapters.register_loader(type_, loader)
