"""A proxy before PostgreSQL that lets one step of one connection through when it is told to."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from db.prove.messages import (
    CANCEL_REQUEST,
    FLUSH,
    GSSENC_REQUEST,
    SSL_REQUEST,
    Messages,
    Step,
    Steps,
)

# SO_LINGER on, for 0 seconds: close() resets the connection instead of ending it in order.
RESET = struct.pack("ii", 1, 0)

# Which answers of the server end its work on a message of the client's, by the message's type.
# Describe is answered by the columns or by NoData, Execute by its tag, as for an empty statement.
ENDED_BY = {"P": "1", "B": "2", "D": "Tn", "E": "CIs", "C": "3", "S": "Z", "Q": "Z"}

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


# Stands for the passing on of an answer that was held back.
HELD_BACK = Step("answer", b"", "")


class Line:
    """One connection of a client, and the one to the server behind it."""

    def __init__(self, gate: "Gate", client: StreamWriter, server: StreamWriter) -> None:
        self.pid = 0  # of the backend, as the server says
        self.steps = Steps(gate.names)
        self.queue: deque[Step] = deque()  # what the client has sent and the server has not
        self.owed = ""  # the types of the messages that the server has still to answer
        self.idle = True  # whether the server is outside a transaction
        self.ended = 0  # how many transactions have ended, as far as the client knows
        self.open = True
        self.fate = ""  # what becomes of the next answer: "", "held" or "cut"
        self._gate = gate
        self._client, self._server = client, server
        self._failed = False  # whether the server passes over everything up to Sync
        self._kept: list[bytes] = []  # answers that are held back

    @property
    def waits(self) -> Step | None:
        """The step that waits for its turn."""
        if self.owed or not self.open:
            return None
        if self._kept:
            return HELD_BACK
        return self.queue[0] if self.queue else None

    def let_through(self) -> None:
        """Send the step whose turn it is, or pass on the answer that was held back."""
        if self._kept:
            self.fate = ""
            self._client.write(b"".join(self._kept))
            self._kept.clear()
            self.ended += self.idle
            self.go_on()
        else:
            self._send(self.queue.popleft())

    def cut(self) -> None:
        """Reset the client's side; the server reads what it was sent, and then the end."""
        self.open = False
        self._gate.ending.append(self)
        sock = self._client.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._client.transport.abort()
        self._server.close()

    def sent(self, message: bytes) -> None:
        """Take a message of the client's."""
        self.queue += self.steps.take(message)
        self.go_on()

    def answered(self, message: bytes) -> None:
        """Take a message of the server's."""
        kind = message[:1].decode()
        if kind == "K":
            self.pid = int.from_bytes(message[5:9], "big")
        elif kind == "Z":
            self.idle = message[5:6] == b"I"
            self.ended += self.idle and not self.fate
            self._failed = False
            self.owed = ""
        elif kind == "E" and self.owed[:1] not in ("Q", "S", ""):
            self.owed = ""
            self._failed = True
        elif self.owed and kind in ENDED_BY[self.owed[0]] and self.owed[0] not in "QS":
            self.owed = self.owed[1:]
        if self.fate:
            self._kept.append(message)
        else:
            self._client.write(message)
        if self.fate == "cut" and not self.owed:
            self.cut()
        self.go_on()

    def go_on(self) -> None:
        """Send what needs no turn."""
        while self.queue and not self.owed and not self._kept:
            step = self.queue[0]
            if self._failed and step.kinds != "S":
                self.queue.popleft()  # PostgreSQL would pass over it
            elif step.free or self._gate.is_open:
                self.let_through()
            else:
                break
        self._gate.changed.set()

    def _send(self, step: Step) -> None:
        self.owed += step.kinds
        # PostgreSQL keeps its answers back until Flush or Sync.
        self._server.write(step.data if step.kinds in ("", "S", "Q") else step.data + FLUSH)


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
        connect = AsyncConnection.connect(
            database, autocommit=True, cursor_factory=psycopg.AsyncRawCursor
        )
        async with await connect as monitor:
            gate = cls(database, names, monitor)
            if not await _knows_pids(monitor):
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
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_forward(requests, line.sent, server))
                    group.create_task(_forward(answers, line.answered, client))
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


async def _knows_pids(monitor: AsyncConnection[Any]) -> bool:
    """Tell whether a client is told the process that works for it, as a pooler does not."""
    try:
        row = await (await monitor.execute(b"SELECT pg_backend_pid()")).fetchone()
    except psycopg.errors.UndefinedFunction:
        return False
    return row == (monitor.info.backend_pid,)


async def _forward(source: StreamReader, take: Callable[[bytes], None], sink: StreamWriter) -> None:
    """Give `take` each message that comes, until the end, and then end the other side, too."""
    messages = Messages(startup=False)
    try:
        while data := await source.read(2**16):
            for message in messages.split(data):
                take(message)
    except OSError:
        pass  # it was cut, or the other side has gone
    finally:
        sink.close()
