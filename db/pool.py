"""The connections of one worker, each set up the way the SQL needs it."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from math import inf
from time import monotonic
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel, generators, waiting
from psycopg.abc import PQGen
from psycopg.adapt import Buffer, Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, tuple_row
from psycopg.types.numeric import Int8Dumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from db.engine import POSTGRESQL, named
from db.resources import ROOT
from db.session import (
    SEARCH_PATH,
    SETTINGS,
    TABLES,
    conninfo,
    engine_of,
    parameters,
    service_settings,
    timeouts,
)
from db.settings import Settings

SESSION = (ROOT / "sql" / "session.sql").read_bytes()
TIMELINE = (ROOT / "sql" / "timeline.sql").read_bytes()

T = TypeVar("T")
Row = dict[str, Any]

# Seconds after which the pool tries once more to replace a lost connection. Then each request that
# waits for one makes it try again, so that it is back at once when the database is.
RECONNECT_TIMEOUT = 0.5

# Seconds in which the server can be told that nobody waits for its statement any more. One that
# answers takes milliseconds; the caller waits for no longer than that behind its deadline.
CANCEL_TIMEOUT = 0.5

# Seconds for the statement to end by that. Longer, and the network is not there, or the server.
ANSWER_TIMEOUT = 0.2


class Connection(AsyncConnection[Row]):
    """A connection that closes where its user stops waiting: at the deadline, or cancelled.

    psycopg's own keeps the user for up to ten seconds then, until the server has cancelled.
    """

    deadline = inf  # of monotonic()

    # The search_path that a session of these settings has found. To look for it anew takes longer
    # than all else of a new session. Forgotten where a table is missing, for it may have moved.
    paths: ClassVar[dict[Settings, str | None]] = {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prepared: set[str] = set()  # what db.pipeline has prepared, by name
        self.engine = POSTGRESQL
        self.silent = False  # nothing was heard of it when its user stopped waiting
        # The parameters of sql/settings.sql in each transaction, behind a pooler: it may have
        # another session, and nothing is prepared.
        self.settings: list[str] = []
        self.unpinned: Settings | None = None  # what set_up() has still to tell the session
        self.replicated = True  # what it has committed, where that waits for a standby
        self.add_notice_handler(self._notice)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # By its source, for its text is in the server's language, and its SQLSTATE any warning's.
        if notice.source_function == "SyncRepWaitForLSN":
            self.replicated = False

    async def wait(
        self,
        gen: PQGen[T],
        interval: float = 1.0,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T:
        """Do what psycopg has to do on the socket. Raises psycopg.Error at the deadline, too."""
        if timeout is None and self.deadline < inf:
            # One timer: what goes by intervals is the watch for Ctrl-C, which asyncio has itself.
            interval = timeout = max(self.deadline - monotonic(), 0)
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            await self._abandon()
            raise
        except psycopg.OperationalError:
            if monotonic() >= self.deadline:
                await self._abandon()
            raise

    async def apply_settings(self) -> None:
        """Set for this transaction what was not set for the session."""
        if self.settings:
            await self.execute(SETTINGS, self.settings)

    async def rows(self, query: bytes, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement that reads, which is a transaction of its own, and return its rows."""
        # Don't prepare this. A fresh plan drops the filters whose parameter is NULL, and is never
        # from before a change of the table. And once psycopg has prepared anything, it answers the
        # next ROLLBACK by DEALLOCATE ALL, which would take what the pipeline has prepared, too.
        if not self.settings:
            return await (await self.execute(query, parameters, prepare=False)).fetchall()
        (rows,) = await self.rows_of_each((query, parameters))
        return rows

    async def rows_of_each(self, *statements: tuple[bytes, Sequence[Any]]) -> list[list[Row]]:
        """Run statements that read, sent at once, in one transaction; return the rows of each."""
        # Up to its end a pipeline is one transaction, so that the settings are there.
        try:
            async with self.pipeline():
                await self.apply_settings()
                cursors = [await self.execute(*each, prepare=False) for each in statements]
        except psycopg.OperationalError as error:
            # Where the server ends the connection, psycopg cannot leave the pipeline, and does not
            # yet call the connection broken.
            if error.sqlstate is None:
                self.pgconn.finish()
            raise
        return [await cursor.fetchall() for cursor in cursors]

    async def search_path(self, *extensions: str) -> str | None:
        """Return the schemas of the tables and of these extensions, as a search_path."""
        cursor = self.cursor(row_factory=tuple_row)
        await cursor.execute(SEARCH_PATH, [TABLES, list(extensions)], prepare=False)
        found = await cursor.fetchone()
        return found[0] if found else None

    async def pin(self, settings: dict[str, str], path: str | None) -> None:
        """Tell the session these settings, and the search_path that was found."""
        await self.execute(SETTINGS, parameters(settings, path, transaction=False), prepare=False)

    async def set_up(self) -> None:
        """Tell a new session what start-up options could not. Raises psycopg.Error.

        The first user does this, and not the pool: where connections break as fast as they are
        made, the pool would pause for longer and longer, and a user just takes the next one.
        """
        settings = self.unpinned
        if settings is None:
            return
        if settings.pooler:
            path = await self.search_path()
            self.settings = parameters(service_settings(settings), path, transaction=True)
        else:
            if settings not in self.paths:
                (session,) = await self.rows(SESSION)
                # Unset: there is a pooler, and another client would have the session next.
                if not session["unset"]:
                    self.paths[settings] = await self.search_path()
            if settings in self.paths:
                await self.pin(service_settings(settings), self.paths[settings])
        self.unpinned = None

    async def cancel_safe(self, *, timeout: float = CANCEL_TIMEOUT) -> None:  # noqa: ASYNC109
        """Ask the server to cancel; psycopg itself asks for longer where it does so."""
        await super().cancel_safe(timeout=min(timeout, CANCEL_TIMEOUT))

    async def _abandon(self) -> None:
        try:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.silent = True
                with suppress(psycopg.Error):
                    # Before the end of this connection, by which a pooler finds the statement.
                    await self.cancel_safe()
                    answer = generators.fetch(self.pgconn)
                    limit = ANSWER_TIMEOUT
                    await waiting.wait_async(answer, self.pgconn.socket, limit, limit)
                    self.silent = False
        finally:
            self.pgconn.finish()


class Pool(AsyncConnectionPool[Connection]):
    """A pool whose queue is bounded by who waits now.

    Its own max_waiting counts those that gave up waiting, too, until a connection comes back.
    """

    def __init__(self, conninfo: str, *, queue: int, **options: Any) -> None:
        super().__init__(conninfo, connection_class=Connection, **options)
        self._queue = queue
        self.waiting = 0  # requests, for a connection
        self.timeouts = 0  # how often a connection was waited for in vain
        self.served = 0  # how often a request was through with its connection, and not refused

    async def getconn(self, timeout: float | None = None) -> Connection:  # noqa: ASYNC109
        """Take a connection, waiting for one up to `timeout` seconds.

        Raises PoolTimeout, or TooManyRequests if as many as may are waiting already.
        """
        if self.waiting >= self._queue:
            raise TooManyRequests
        self.waiting += 1
        try:
            return await super().getconn(timeout)
        except PoolTimeout:
            self.timeouts += 1
            # Else they stay until a connection comes back, which in an outage none does.
            while self._waiting and self._waiting[0].error:
                self._waiting.popleft()
            raise
        finally:
            self.waiting -= 1

    async def putconn(self, conn: Connection) -> None:
        """Give a connection back, which goes on if the caller is cancelled meanwhile."""
        await asyncio.shield(self._put(conn))

    async def _put(self, conn: Connection) -> None:
        await super().putconn(conn)
        if conn.silent:
            # The others may have died in the same silence, and each would cost a request.
            await self.drain()


class FiniteTimestamp(Loader):
    """Loads a timestamp in UTC; what datetime cannot hold, as 'infinity', as None.

    psycopg's own goes by the DateStyle that the server has reported; behind a pooler it is not told
    of the one that a transaction has set.
    """

    def load(self, data: Buffer) -> datetime | None:
        try:
            value = datetime.fromisoformat(bytes(data).decode())
            return value.astimezone(UTC)  # a psql of someone's may have another time zone
        except (ValueError, OverflowError):
            return None


class FiniteDate(Loader):
    """Loads a date; what Python's date cannot hold, as 'infinity', as None."""

    def load(self, data: Buffer) -> date | None:
        try:
            return date.fromisoformat(bytes(data).decode())
        except ValueError:
            return None


class FiniteLocalTimestamp(Loader):
    """Loads a timestamp without a zone; what datetime cannot hold, as 'infinity', as None."""

    def load(self, data: Buffer) -> datetime | None:
        try:
            return datetime.fromisoformat(bytes(data).decode())
        except ValueError:
            return None


class TimeOfDay(Loader):
    """Loads a time as text, for there is a 24:00:00, which Python's time cannot hold."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


LOADERS: dict[str, type[Loader]] = {
    "date": FiniteDate,
    "time": TimeOfDay,
    "timestamp": FiniteLocalTimestamp,
    "timestamptz": FiniteTimestamp,
}


class FormerPrimary(psycopg.OperationalError):
    """Another server was promoted in the place of this one."""


def open_pool(settings: Settings) -> Pool:
    """Make the pool; `async with` opens it, without waiting for the database."""
    url = conninfo(settings)
    hosts = str(conninfo_to_dict(url).get("host") or os.environ.get("PGHOST"))
    # Of a distributed engine's hosts each takes writes.
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
            # Back without having been told, it takes writes that nobody will ever see.
            await connection.close()
            raise FormerPrimary("another server was promoted in the place of this one")
        if 0 < seen < latest:
            await pool.drain()  # of connections to the former one

    pool = Pool(
        url,
        queue=settings.pool_queue,
        min_size=settings.pool_size,
        max_size=settings.pool_size,
        reconnect_timeout=RECONNECT_TIMEOUT,
        reconnect_failed=_try_again,
        kwargs={
            # Outside conn.transaction() a statement is its own READ COMMITTED transaction.
            "autocommit": True,
            "cursor_factory": AsyncRawCursor,  # $1, as in the files
            "row_factory": dict_row,
            # Prepare each statement at its first use, if the next one is in the same session.
            "prepare_threshold": None if settings.pooler else 0,
        },
        configure=configure,
        open=False,
        name="onerow",
    )
    return pool


async def _try_again(pool: AsyncConnectionPool[Any]) -> None:
    if pool.get_stats()["requests_waiting"]:
        await pool.check()  # which finds no connection, and makes the pool grow


async def _configure(settings: Settings, connection: Connection) -> None:
    if settings.engine is None:  # it could not be asked when the service started
        engine = named(connection.pgconn.parameter_status)
        if engine != "postgresql":
            await connection.close()
            raise psycopg.OperationalError(f"the server is another engine: set ENGINE={engine}")
    connection.engine = engine_of(settings)
    if connection.engine is POSTGRESQL:
        connection.unpinned = settings
    elif settings.pooler:
        connection.settings = parameters(timeouts(settings), None, transaction=True)
    # Every BEGIN that psycopg sends says so: a SET TRANSACTION would end with its transaction, and
    # the next attempt would run at READ COMMITTED.
    await connection.set_isolation_level(IsolationLevel.SERIALIZABLE)
    # Else psycopg sends 7 as smallint and 70000 as integer, and each would be a plan of its own.
    connection.adapters.register_dumper(int, Int8Dumper)
    for type_, loader in LOADERS.items():
        connection.adapters.register_loader(type_, loader)
