"""A client with one connection and no retries, which raises whatever goes wrong."""

import asyncio
import json
import socket
from contextlib import suppress
from io import BufferedReader
from typing import Any, NamedTuple

from tests.support.service import LIMIT, Service


class Answer(NamedTuple):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(method: str, path: str, body: object = None) -> bytes:
    """Return the bytes of a request."""
    content = b"" if body is None else json.dumps(body).encode()
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content


class Caller:
    """A client of a port, which keeps its connection as long as the answers let it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)

    async def close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def call(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request; return its answer. Raises OSError or EOFError if none came."""
        await self.connect()
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(request(method, path, body))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
        }
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            await self.close()
        return Answer(int(head[0].split()[1]), headers, content)


def connect(service: Service, receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(LIMIT)
    connection.connect(("127.0.0.1", service.port))
    return connection


# The head of a POST of lines, which come in chunks.
LINES_HEAD = (
    b"POST /departments HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: application/x-ndjson\r\n\r\n"
)


def chunked(content: bytes) -> bytes:
    """Return a part of a body with its framing."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def next_answer(received: BufferedReader) -> Any:
    """Return the answer to the next line, without the head and the framing before it."""
    while not (line := received.readline()).startswith(b"{"):
        assert line
    return json.loads(line)


PAGE = request("GET", "/departments?limit=1000")
PAGE_SIZE = 10**6


def fill(service: Service) -> None:
    """Insert rows that make the answer to PAGE as large as PAGE_SIZE."""
    service.sql(
        "INSERT INTO departments (name)"
        " SELECT repeat('𝄞', 250) || n FROM generate_series(1, 1000) AS n"
    )
