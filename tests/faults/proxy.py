"""A network between the service and PostgreSQL that can be cut, delayed, held and stalled."""

import asyncio
import random
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from enum import Enum, auto
from threading import Event

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.prove.messages import Messages

# SO_LINGER on, for 0 seconds: close() resets the connection instead of ending it in order.
RESET = struct.pack("ii", 1, 0)

# The share of the COMMITs that are cut. It makes hundreds in a run, and seldom two in one request.
SHARE = 0.1


class Lose(Enum):
    """What is lost when a connection is cut at its COMMIT."""

    COMMIT = auto()  # it never reaches the server
    ANSWER = auto()  # the server has carried it out


class Executes:
    """Knows a statement in what a client sends, be it a query or a prepared statement."""

    def __init__(self, wanted: Callable[[bytes], bool]) -> None:
        self._wanted = wanted
        self._names: set[bytes] = set()

    def __call__(self, message: bytes) -> bool:
        kind, body = message[:1], message[5:]
        if kind == b"P":  # Parse: a name, then the query
            name, query, _ = body.split(b"\0", 2)
            (self._names.add if self._wanted(query) else self._names.discard)(name)
        elif kind == b"B":  # Bind: a portal, then the name of the statement to execute
            return body.split(b"\0", 2)[1] in self._names
        return kind == b"Q" and self._wanted(body.removesuffix(b"\0"))


def is_commit(query: bytes) -> bool:
    """Whether this ends a transaction of the service's."""
    return query == b"COMMIT"


def is_insert(query: bytes) -> bool:
    """Whether this is one of the files insert.sql."""
    return b"INSERT INTO" in query


def says_committed(message: bytes) -> bool:
    """Whether this is a server's word that a COMMIT is done."""
    return message[:1] == b"C" and message[5:] == b"COMMIT\0"


class Link:
    """A connection of the service, and the one to the server behind it."""

    def __init__(self, client: StreamWriter, server: StreamWriter) -> None:
        self.client = client
        self.server = server
        self.flowing = asyncio.Event()
        self.over = asyncio.Event()

    def cut(self) -> None:
        """Reset the service's side; the server reads what it was sent, and then the end."""
        sock = self.client.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.client.transport.abort()
        self.server.close()


class Proxy:
    """Forwards a port to the server."""

    def __init__(self, database: str, rng: random.Random, address: str = "127.0.0.1") -> None:
        self.delay = 0.0  # seconds, of all that is sent, either way
        self.lose: Lose | None = None
        self.struck = 0  # how many connections were struck, and how many reads were delayed
        self._database = database
        self._address = address
        self._rng = rng
        self._port = 0
        self._links: set[Link] = set()
        self._held: set[Link] | None = None
        self._stall: bytes | None = None  # the key whose insert is to be held back
        self._stalled = Event()
        self._resumed = asyncio.Event()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The database's URL, through the proxy."""
        # libpq would ask for encryption first, which this server does not have.
        options = {"sslmode": "disable", "gssencmode": "disable"}
        return make_conninfo(self._database, host=self._address, port=self._port, **options)

    @property
    def flowing(self) -> int:
        """How many connections are alive."""
        return sum(link.flowing.is_set() for link in self._links)

    async def listen(self) -> None:
        """Take connections, on the same port each time."""
        self._listener = await asyncio.start_server(self._accept, self._address, self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Reset all connections, and refuse others until listen()."""
        assert self._listener is not None
        self._listener.close()
        for link in list(self._links):
            self._cut(link)

    async def hold(self) -> None:
        """Let nothing through until release(), and close nothing."""
        self._held = set(self._links)
        self.struck += self.flowing
        for link in self._held:
            link.flowing.clear()

    async def release(self, *, lost: bool) -> None:
        """Let through what was held, or, with `lost`, let only new connections through."""
        assert self._held is not None
        for link in self._links:
            if not (lost and link in self._held):
                link.flowing.set()
        self._held = None

    def stall(self, key: str) -> Event:
        """Hold back the next insert of this key, and what its connection sends after it.

        Returns an event that is set when the insert is held.
        """
        self._resumed.clear()
        self._stall, self._stalled = key.encode(), Event()
        return self._stalled

    async def resume(self) -> None:
        """Let through what stall() held back."""
        self._resumed.set()

    async def close(self) -> None:
        """Close all connections, and return when they are gone."""
        assert self._listener is not None
        self._listener.close()
        self._resumed.set()
        for link in list(self._links):
            link.flowing.set()
            for side in (link.client, link.server):
                side.transport.abort()
            await link.over.wait()

    def _cut(self, link: Link) -> None:
        self.struck += 1
        link.cut()

    async def _accept(self, requests: StreamReader, client: StreamWriter) -> None:
        there = conninfo_to_dict(self._database)
        host, port = str(there["host"]), there.get("port", 5432)
        try:
            if host.startswith("/"):
                socket_path = f"{host}/.s.PGSQL.{port}"
                answers, server = await asyncio.open_unix_connection(socket_path)
            else:
                answers, server = await asyncio.open_connection(host, port)
        except OSError:
            client.transport.abort()
            return
        link = Link(client, server)
        if self._held is None:
            link.flowing.set()
        else:
            self._held.add(link)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._forward(link, requests, server, Messages(startup=True), Executes(is_commit)),
                self._forward(link, answers, client, Messages(startup=False), says_committed),
            )
        except OSError:
            pass  # either side is gone, or was cut
        finally:
            self._links.discard(link)
            link.over.set()
            client.close()
            server.close()

    async def _forward(
        self,
        link: Link,
        source: StreamReader,
        sink: StreamWriter,
        messages: Messages,
        commits: Callable[[bytes], bool],
    ) -> None:
        """Pass on what comes; cut or stall the connection where it is told to."""
        inserts = Executes(is_insert)
        while data := await source.read(2**16):
            if self.delay:
                self.struck += 1
                await asyncio.sleep(self.delay)
            await link.flowing.wait()
            complete = list(messages.split(data))
            sent = 0
            for position, message in enumerate(complete):
                here = Lose.COMMIT if sink is link.server else Lose.ANSWER
                if inserts(message) and self._stall and self._stall in message:
                    sink.write(b"".join(complete[sent:position]))
                    sent = position
                    self._stall = None
                    self._stalled.set()
                    self.struck += 1
                    await self._resumed.wait()
                if commits(message) and self.lose is here and self._rng.random() < SHARE:
                    sink.write(b"".join(complete[sent:position]))
                    self._cut(link)
                    return
            sink.write(b"".join(complete[sent:]))
            await sink.drain()
        await link.flowing.wait()  # the end of a connection is held back, too
        sink.close()
