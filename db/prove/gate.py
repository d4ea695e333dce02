"""A proxy before PostgreSQL that lets one step of one connection through when it is told to."""

import asyncio
import os
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import psutil
import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from db.prove.line import Line
from db.prove.messages import CANCEL_REQUEST, GSSENC_REQUEST, SSL_REQUEST, Messages

# Seconds without an answer after which the server is asked about it, and between two questions. A
# step that does not block takes about a millisecond.
ASK = 0.002

# Seconds of silence that count as blocked where the server cannot be asked.
SILENCE = 0.5

# Seconds of silence after which a request counts as waiting for another one, inside the service or
# in a server that does not say so. In the service as it is, on PostgreSQL, nothing waits so. They
# must be longer than the longest pause before an attempt, which is 0.25 in the service and 2.2 in
# a merge.
PATIENCE = 3.0

# In the order of preference. The first is what isolationtester asks; it also knows of a wait for a
# safe snapshot.
QUESTIONS = (
    b"SELECT pg_isolation_test_session_is_blocked($1::integer, $2::integer[])",
    b"SELECT cardinality(pg_blocking_pids($1::integer)) > 0 FROM (SELECT $2::integer[]) AS pids",
)


class Gate:
    """Listens on a port of its own; all that comes goes through while it is open."""

    def __init__(
        self, database: str, names: Mapping[bytes, str], monitor: AsyncConnection[Any]
    ) -> None:
        """`names` has what schedules call a statement, by its SQL; `monitor` asks the server."""
        self.names = names
        self.is_open = True
        self.changed = asyncio.Event()  # is set after each message, and each end of a connection
        self.lines: list[Line] = []
        self.ending: list[Line] = []  # connections that were cut, whose backends may be there still
        self.killed = 0  # how many clients kill_client() has killed
        self.patience = PATIENCE
        self.questions = list(QUESTIONS)  # of which the first that the server knows is asked
        self._database = database
        self._monitor = monitor
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, database: str, names: Mapping[bytes, str]) -> AsyncIterator[Self]:
        """Listen before this database; at the end all connections are closed.

        Raises psycopg.Error.
        """
        gate = cls(database, names, await _monitor(database))
        try:
            if not await _knows_pids(gate._monitor):
                gate.questions.clear()
            listener = await asyncio.start_server(gate._accept, "127.0.0.1", 0)
            gate._port = listener.sockets[0].getsockname()[1]
            try:
                yield gate
            finally:
                listener.close()
                for line in list(gate.lines):
                    line.cut()
                while gate._tasks:
                    await asyncio.wait(gate._tasks)
        finally:
            await gate._monitor.close()

    async def reconnect(self) -> None:
        """Ask the server on a new connection from now on, because it was killed."""
        await self._monitor.close()
        self._monitor = await _monitor(self._database)

    @property
    def url(self) -> str:
        """The database's URL, through the gate, which reads what is sent: it is not encrypted."""
        return make_conninfo(
            self._database,
            host="127.0.0.1",
            hostaddr="",
            port=self._port,
            sslmode="disable",
            gssencmode="disable",
        )

    async def blocked(self, line: Line) -> bool:
        """Tell whether the server says that another connection keeps this one from going on."""
        pids = [each.pid for each in self.lines]
        while self.questions:
            try:
                cursor = await self._monitor.execute(self.questions[0], [line.pid, pids])
            except psycopg.errors.UndefinedFunction:
                del self.questions[0]
                continue
            row = await cursor.fetchone()
            return bool(row and row[0])
        await asyncio.sleep(SILENCE)
        return bool(line.owed)

    def open(self) -> None:
        """Let everything through from now on."""
        self.is_open = True
        for line in self.lines:
            line.go_on()

    async def terminate(self, line: Line) -> None:
        """End the backend of a connection, and wait until the client has been told."""
        await self._monitor.execute(b"SELECT pg_terminate_backend($1::integer)", [line.pid])
        while line.open:
            self.changed.clear()
            await self.changed.wait()

    async def kill_client(self, line: Line) -> None:
        """Kill the process that has a connection, and wait until all of its connections end."""
        owners = {
            # A connection that has just ended may have had the same port, and has no process.
            each.laddr.port: each.pid
            for each in psutil.net_connections("tcp4")
            if each.pid
        }
        process = owners[line.client_port]
        assert process is not None
        lost = [each for each in self.lines if owners.get(each.client_port) == process]
        os.kill(process, signal.SIGKILL)
        self.killed += 1
        while any(each.open for each in lost):
            self.changed.clear()
            await self.changed.wait()
        self.ending += lost

    async def all_gone(self) -> None:
        """Wait until the backends of connections that were cut are gone, with all their locks."""
        there = b"SELECT FROM pg_stat_activity WHERE pid = $1::integer"
        while self.ending:
            if (await self._monitor.execute(there, [self.ending[0].pid])).rowcount:
                await asyncio.sleep(ASK)
            else:
                del self.ending[0]

    def _accept(self, requests: StreamReader, client: StreamWriter) -> None:
        task = asyncio.create_task(self._until_the_end(requests, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_the_end(self, requests: StreamReader, client: StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(requests, client)
        finally:
            client.close()

    async def _serve(self, requests: StreamReader, client: StreamWriter) -> None:
        while True:
            head = await requests.readexactly(8)
            size, version = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
            if version not in (SSL_REQUEST, GSSENC_REQUEST):
                break
            client.write(b"N")
        head += await requests.readexactly(size - 8)
        answers, server = await self._connect()
        try:
            server.write(head)
            if version == CANCEL_REQUEST:
                await answers.read()  # the server closes when it has told the backend
                return
            line = Line(self, client, server)
            self.lines.append(line)
            self.changed.set()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_forward(requests, line.sent, server))
                    group.create_task(_forward(answers, line.answered, client, line.server_ended))
            finally:
                self.lines.remove(line)
                line.open = False
                self.changed.set()
        finally:
            server.close()

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        host, port = self._monitor.info.host, self._monitor.info.port
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


async def _monitor(database: str) -> AsyncConnection[Any]:
    return await AsyncConnection.connect(
        database, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.AsyncRawCursor
    )


async def _knows_pids(monitor: AsyncConnection[Any]) -> bool:
    """Tell whether a client is told the process that works for it, as a pooler does not."""
    try:
        row = await (await monitor.execute(b"SELECT pg_backend_pid()")).fetchone()
    except psycopg.errors.UndefinedFunction:
        return False
    return row == (monitor.info.backend_pid,)


async def _forward(
    source: StreamReader,
    take: Callable[[bytes], None],
    sink: StreamWriter,
    ended: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Give `take` each message that comes, until the end, and then end the other side, too.

    `ended` may take time before that.
    """
    messages = Messages(startup=False)
    try:
        while data := await source.read(2**16):
            for message in messages.split(data):
                take(message)
    except OSError:
        pass  # it was cut, or the other side has gone
    finally:
        if ended:
            await ended()
        sink.close()
