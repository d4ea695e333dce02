"""A client's connection: whatever it sends or leaves undone, it costs a bounded time and memory.

uvicorn bounds the time between two requests, and its parser nothing: a header, a trailer or a run
of pipelined requests may go on for ever, each byte of it kept as some twenty.
"""

import resource
from functools import cache
from typing import Any, ClassVar

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from web.observation import new_id
from web.problem import problem, unavailable

# Bytes of a request line with its headers, and their number: what HAProxy and others take, too. It
# is checked after each piece of so many bytes, so that up to twice as many may pass. Behind the
# headers it is for the framing of chunks, and for trailers.
MAX_HEAD = 16384
MAX_HEADERS = 100

# Requests that a client may send before it has the answer to the first.
MAX_PIPELINED = 16

# Seconds from the first byte of a request, or from the connection, to the end of its headers.
HEAD_TIMEOUT = 10

# Seconds from the end of an answer until the client has read it: 50 KB a second for the longest.
READ_TIMEOUT = 30

# Seconds between two looks at these limits.
CHECK = 1.0

# Bytes that clients have not read yet, of all answers in a process. The longest is some 4 MB.
MAX_UNREAD = 64 * 2**20

# Seconds in which what a refused client still sends is read and dropped. Were it left unread, the
# kernel would reset the connection, and the client might not see the refusal.
LINGER = 2

# Connections of a process, each some 5 KB while idle; or a third of the files that it may open, if
# that is less. As many again are told 503, what comes beyond is closed, and the last third is for
# all else: the database's connections, code, temporary files.
MAX_CONNECTIONS = 3000

# A chunk of one byte, framed. Each byte of a body pays for such a frame.
FRAMED_BYTE = len(b"1\r\nx\r\n")

# Clients whose answers wait to be read, in the order in which they fell behind.
_behind: dict["Connection", None] = {}


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with bounds."""

    # This process is about to end: each answer is the last on its connection.
    draining: ClassVar[bool] = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unproductive = 0  # bytes since the last end of headers, other than a body's
        self._refused = False
        self._since = 0.0  # when the client's turn began
        self._answering: RequestResponseCycle | None = None  # cycle is the last one parsed

    def connection_made(self, transport: Any) -> None:
        """Count it and watch it."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._watch = self.loop.call_later(CHECK, self._check)
        excess = len(self.connections) - max_connections()
        if excess > max_connections():
            self.transport.abort()
        elif excess > 0:
            self._refuse(unavailable("Too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._watch.cancel()
        _behind.pop(self, None)
        if self._answering is not None:
            # uvicorn tells only the last of several: the others would write to what is closed.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it in pieces that cannot make much more than the bounds before they are checked."""
        if self.timeout_keep_alive_task is not None:
            self._since = self.loop.time()
        for start in range(0, len(data), MAX_HEAD):
            if self._refused or self.transport.is_closing():
                return
            piece = data[start : start + MAX_HEAD]
            self._unproductive += len(piece)
            super().data_received(piece)
            if self._unproductive > MAX_HEAD or len(self.headers or ()) > MAX_HEADERS:
                self._refuse(problem(431, f"Over {MAX_HEAD} bytes or {MAX_HEADERS} headers."))
            elif len(self.pipeline) > MAX_PIPELINED:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._unproductive = 0
        if len(self.headers) > MAX_HEADERS:
            self._refuse(problem(431, f"Over {MAX_HEADERS} headers."))
            raise ValueError  # the parser stops here
        super().on_headers_complete()
        if self.draining:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._unproductive = max(0, self._unproductive - FRAMED_BYTE * len(body))
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the client."""
        self._since = self.loop.time()
        if self._answering is not None:
            self._answering.body.clear()  # what nobody asked for would stay until the next request
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give up the slowest reader where all together leave too much unread."""
        super().pause_writing()
        _behind[self] = None
        while sum(one.transport.get_write_buffer_size() for one in _behind) > MAX_UNREAD:
            slowest = next(iter(_behind))
            del _behind[slowest]
            slowest.transport.abort()

    def resume_writing(self) -> None:
        """Go on."""
        _behind.pop(self, None)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what is not HTTP."""
        self._refuse(problem(400, "This is not HTTP/1.1."))

    def drain(self) -> None:
        """Let the last answer that it owes be the last on it, and say so."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close it when its answer is out, or else before the server gives up waiting for that."""
        super().shutdown()
        self._watch.cancel()
        grace = self.config.timeout_graceful_shutdown
        assert grace is not None
        self._watch = self.loop.call_later(grace - CHECK / 2, self.transport.abort)

    def _check(self) -> None:
        """Is it the client's turn, and for too long?"""
        self._watch = self.loop.call_later(CHECK, self._check)
        if self.transport.get_write_buffer_size() > 0:
            limit = READ_TIMEOUT
        elif self._refused:
            limit = LINGER
        elif self._is_answering():
            return  # the application's turn, with its own limits
        elif self.timeout_keep_alive_task is not None:
            return  # idle: uvicorn's own limit
        else:
            limit = HEAD_TIMEOUT
        if self.loop.time() - self._since > limit:
            self.transport.abort()

    def _refuse(self, response: Response) -> None:
        """Answer, unless another answer is due, and close."""
        if self._refused:
            return
        self._refused = True
        if self._is_answering():
            self.transport.abort()
            return
        self._unset_keepalive_if_required()
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            (b"x-request-id", new_id()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + response.body)
        self.transport.write_eof()
        now = self.loop.time()
        self.app_state["metrics"].answered("", "", response.status_code, now - self._since)
        self._since = now

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete


@cache
def max_connections() -> int:
    """Return how many connections this process serves; let it open as many files as that takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = 3 * MAX_CONNECTIONS
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == unlimited else min(MAX_CONNECTIONS, soft // 3)
