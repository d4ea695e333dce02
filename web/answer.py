"""Hands a request to the ASGI application, and writes its answer as bytes."""

import asyncio
import logging
from asyncio import Event, Transport
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope
from uvicorn.server import ServerState

from web.head import Request

STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}

Headers = list[tuple[bytes, bytes]]

# The most bytes of a streamed body that wait for the application, before reading pauses.
MOST_UNREAD = 2**16

log = logging.getLogger("onerow")


def head_of(status: int, headers: Headers) -> bytes:
    """Return the status line and the headers. Raises ValueError if one has a line end in it."""
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if not lines.count(b"\n") == lines.count(b"\r") == len(headers):
        raise ValueError("a header with a line in it")
    return STATUS_LINES[status] + lines + b"\r\n"


class Answer:
    """A request that the application is answering."""

    def __init__(
        self,
        request: Request,
        transport: Transport,
        writable: Event,
        server: ServerState,
        on_complete: Callable[[], None],
        on_read: Callable[[], None],
    ) -> None:
        """Take a request.

        `writable` is set while the client reads what is sent. `on_complete` is called when the
        whole answer is written, and `on_read` when more of a streamed body may be handed on.
        """
        self._on_read = on_read
        self.keep_alive = request.headers.keep_alive
        self.started = False
        self._complete = False
        self._request = request
        self._transport = transport
        self._writable = writable
        self._server = server
        self._on_complete = on_complete
        self._head: tuple[int, Headers] | None = None  # written with the first part of the body
        self.feeding = request.headers.streamed  # whether more of the body is to come
        # The parts of the body that have arrived and wait to be read. b"" ends a streamed one.
        self._parts: deque[bytes] = deque(() if self.feeding else (request.body,))
        self.unread = len(request.body)  # bytes of `_parts`
        self.written = 0.0  # when the last part was written, by the loop's clock
        self._woken = Event()  # set when more of the body has come or the answer is complete
        self._chunked = False  # whether the answer is sent in chunks

    def scope(self, **others: Any) -> Scope:
        """Return the ASGI scope of the request, with `others` added.

        Its "request" is no part of ASGI: it is what web.head has parsed, for web.validation.
        """
        request = self._request
        path = request.path.decode()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method,
            "scheme": "http",
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": request.path,
            "query_string": request.query,
            "headers": request.headers.all,
            "request": request,
            **others,
        }

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let the application answer, and break the connection if it does not finish."""
        try:
            await app(scope, self.receive, self.send)
        except Exception:  # Starlette has answered with 500, unless an answer had begun
            log.exception("a defect of the service")
        finally:
            if not self._complete:
                self._transport.abort()

    def disconnect(self) -> None:
        """Drop the rest of the answer, because the client is gone."""
        self._complete = True
        self._woken.set()

    @property
    def is_full(self) -> bool:
        """Whether enough of a streamed body is waiting to be read."""
        return self.unread >= MOST_UNREAD

    def feed(self, part: bytes) -> None:
        """Take the next part of a streamed body, which is b"" at its end."""
        self.feeding = bool(part)
        self._parts.append(part)
        self.unread += len(part)
        self._woken.set()

    async def receive(self) -> Message:
        """Return the next part of the body, and after its end http.disconnect.

        That comes when the answer is complete or the client is gone.
        """
        while not self._parts and not self._complete:
            self._woken.clear()
            await self._woken.wait()
        if not self._parts:
            return {"type": "http.disconnect"}
        was_full = self.is_full
        part = self._parts.popleft()
        self.unread -= len(part)
        if was_full and self._request.headers.streamed and not self.is_full:
            self._on_read()
        more = self.feeding or bool(self._parts)
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(self, message: Message) -> None:
        """Write a part of the answer, once the client has read enough of the parts before it."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self._complete:
            return
        if message["type"] == "http.response.start":
            self._head = message["status"], [*self._server.default_headers, *message["headers"]]
            return
        more = message.get("more_body", False)
        self.written = asyncio.get_running_loop().time()
        self._transport.write(self._bytes(message.get("body", b""), more=more))
        if not more:
            self._complete = True
            self._woken.set()
            self._on_complete()

    def _bytes(self, body: bytes, *, more: bool) -> bytes:
        head = b""
        if self._head is not None:
            head, self._head = self._begin(*self._head), None
        if self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" * (
                not more
            )
        return head if self._request.method == "HEAD" else head + body

    def _begin(self, status: int, headers: Headers) -> bytes:
        self.started = True
        if status != 204 and b"content-length" not in dict(headers):
            self._chunked = self._request.version == "1.1"
            if self._chunked:
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        elif self.feeding:
            self.keep_alive = False  # the rest of the request is not read
        if not self.keep_alive:
            headers.append((b"connection", b"close"))
        return head_of(status, headers)
