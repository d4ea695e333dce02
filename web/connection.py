"""A client's connection: whatever it sends or leaves undone, it costs a bounded time and memory.

A protocol for uvicorn's server, which accepts connections and ends them with the process.
"""

import asyncio
import resource
from functools import cache
from typing import Any, ClassVar, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import Response
from uvicorn import Config
from uvicorn.server import ServerState

from web.answer import Answer, head_of
from web.observation import new_id
from web.problem import problem, unavailable
from web.request import MAX_HEAD, Awaits, Request, Requests

# Seconds from the first byte of a request, or from the connection, to the end of its headers.
HEAD_TIMEOUT = 10

# Seconds from the end of an answer until the client has read it: 50 KB a second for the longest.
READ_TIMEOUT = 30

# Seconds between two looks at these limits.
CHECK = 1.0

# Bytes that clients have not read yet, of all answers in a process. The longest is some 4 MB.
MAX_UNREAD = 64 * 2**20

# Bytes that have arrived of requests that are not answered, of all connections in a process; beside
# them one body may be as large as the settings allow. 2,000 requests of the default's size.
MAX_HELD = 64 * 2**20

# Seconds in which what a client still sends behind its last answer is read and dropped. Were it
# left unread, the kernel would reset the connection, and the client might not see that answer.
LINGER = 2

# Connections of a process, each some 5 KB while idle; or a third of the files that it may open, if
# that is less. As many again are told 503, what comes beyond is closed, and the last third is for
# all else: the database's connections, code, temporary files.
MAX_CONNECTIONS = 3000

# Clients whose answers wait to be read, in the order in which they fell behind.
_behind: dict["Connection", None] = {}


class Limits(NamedTuple):
    """What the settings say; the application's lifespan has it in its state, as `limits`."""

    body: int  # bytes
    body_timeout: float  # seconds from the end of the headers to the end of the body


class Connection(asyncio.Protocol):
    """Reads one request whole, then lets the application answer it, then reads the next.

    So nothing begins on the word of a request that is not in order, or not all there.
    """

    # This process is about to end: each answer is the last on its connection.
    draining: ClassVar[bool] = False

    # Bytes that this process holds of requests that it has not answered.
    held: ClassVar[int] = 0

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: object = None,
    ) -> None:
        self._config = config
        self._server = server_state
        self._state = app_state
        self._limits: Limits = app_state["limits"]
        self._loop = asyncio.get_running_loop()
        self._requests = Requests(self._limits.body)
        self._awaits = Awaits.HEAD
        self._idle = False  # an answer is out, and nothing has come since
        self._answer: Answer | None = None  # the one that is due
        self._writable = asyncio.Event()
        self._writable.set()
        self._held = 0  # of `held`, what this connection has
        self._paused = False  # reading, for what was sent ahead is as much as is kept
        self._eof = False  # the client sends no more, and may still read
        self._over = False  # the last answer is out
        self._since = 0.0  # when the client's turn began

    def connection_made(self, transport: Any) -> None:
        """Count it and watch it."""
        self.transport = transport
        self._addresses = {
            side: (transport.get_extra_info(name) or ("", 0))[:2]
            for side, name in (("client", "peername"), ("server", "sockname"))
        }
        connections = self._server.connections
        connections.add(self)  # type: ignore[arg-type]  # a set of its own classes
        self._since = self._loop.time()
        self._watch = self._loop.call_later(CHECK, self._check)
        excess = len(connections) - max_connections()
        if excess > max_connections():
            self.transport.abort()
        elif excess > 0:
            self._refuse(unavailable("Too many connections."))

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget it."""
        self._watch.cancel()
        _behind.pop(self, None)
        self._hold(0)
        self._server.connections.discard(self)
        if self._answer is not None:
            self._answer.disconnect()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Read on, or keep for later what is sent ahead of an answer: no more than one request."""
        if self._over or self.transport.is_closing():
            return
        if self._answer is not None and not self._answer.keep_alive:
            return  # nothing that comes behind the last request is answered
        self._requests.data += data
        self._hold(self._held + len(data))
        if self._answer is None:
            self._advance()
        elif self._holds_too_much():
            self._answer.keep_alive = False
            self._forget()
        if self._answer is not None and len(self._requests.data) > MAX_HEAD + self._limits.body:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Tell whether it stays open: the client, which sends no more, waits for an answer."""
        self._eof = True
        return self._answer is not None

    def _hold(self, size: int) -> None:
        Connection.held += size - self._held
        self._held = size

    def _holds_too_much(self) -> bool:
        return Connection.held > MAX_HELD + self._limits.body

    def _forget(self) -> None:
        """Drop what has arrived and is not being answered."""
        self._requests = Requests(self._limits.body)
        self._hold(0)

    def _advance(self) -> None:
        """Go on with what has arrived."""
        try:
            came = next(self._requests)
        except HTTPException as error:
            self._refuse(problem(error.status_code, error.detail, error.headers))
            return
        if self._holds_too_much():
            self._refuse(unavailable("Too much has arrived that is not answered yet."))
            return
        if self._idle and (self._requests.data or came is not Awaits.HEAD):
            self._idle = False
            self._since = self._loop.time()
        if isinstance(came, Request):
            self._awaits = Awaits.HEAD
            self._start(came)
            return
        if came is not Awaits.HEAD and self._awaits is Awaits.HEAD:
            self._since = self._loop.time()
        if came is Awaits.BODY_AFTER_CONTINUE:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._awaits = came

    def _start(self, request: Request) -> None:
        answer = Answer(request, self.transport, self._writable, self._server, self._answered)
        if self.draining:
            answer.keep_alive = False
        self._answer = answer
        scope = answer.scope(state=self._state.copy(), **self._addresses)
        task = self._loop.create_task(answer.run(self._config.loaded_app, scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _answered(self) -> None:
        """It is the client's turn again."""
        assert self._answer is not None
        self._since = self._loop.time()
        last, self._answer = not self._answer.keep_alive, None
        if last:
            self._end()
            return
        self._hold(len(self._requests.data))
        self._idle = True
        if self._requests.data:
            self._advance()
        if self._answer is None and not self._over:
            self._resume()
            if self._eof:
                self.transport.close()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def _end(self) -> None:
        """Let the client see that no more answers come; what it still sends is dropped."""
        self._over = True
        self._since = self._loop.time()
        self._forget()
        if self._eof:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()
            self._resume()

    def pause_writing(self) -> None:
        """Give up the slowest reader where all together leave too much unread."""
        self._writable.clear()
        _behind[self] = None
        while sum(one.transport.get_write_buffer_size() for one in _behind) > MAX_UNREAD:
            slowest = next(iter(_behind))
            del _behind[slowest]
            slowest.transport.abort()

    def resume_writing(self) -> None:
        """Go on."""
        _behind.pop(self, None)
        self._writable.set()

    def drain(self) -> None:
        """Let the last answer that it owes be the last on it, and say so."""
        if self._answer is not None and not self._answer.started:
            self._answer.keep_alive = False

    def shutdown(self) -> None:
        """Close it when no answer is due, or else before the server gives up waiting for that."""
        Connection.draining = True
        if self._answer is not None:
            self._answer.keep_alive = False
        elif self._awaits is Awaits.HEAD and not self._over:
            self.transport.close()  # nothing of a request without its whole head has begun
        grace = self._config.timeout_graceful_shutdown
        assert grace is not None
        self._loop.call_later(grace - CHECK / 2, self.transport.abort)

    def _check(self) -> None:
        """Is it the client's turn, and for too long?"""
        self._watch = self._loop.call_later(CHECK, self._check)
        if self.transport.get_write_buffer_size() > 0:
            limit: float = READ_TIMEOUT
        elif self._over:
            limit = LINGER
        elif self._answer is not None:
            return  # the application's turn, with its own limits
        elif self._idle:
            limit = self._config.timeout_keep_alive
        elif self._awaits is Awaits.HEAD:
            limit = HEAD_TIMEOUT
        else:
            limit = self._limits.body_timeout
        if self._loop.time() - self._since <= limit:
            return
        if self._awaits is not Awaits.HEAD and not self._over:
            self._refuse(problem(408, "The body did not arrive in time."))
        else:
            self.transport.abort()

    def _refuse(self, response: Response) -> None:
        """Answer what is no request, or too much of one, and close."""
        headers = [
            *self._server.default_headers,
            *response.raw_headers,
            (b"x-request-id", new_id()),
            (b"connection", b"close"),
        ]
        body = b"" if self._requests.is_head else bytes(response.body)
        self.transport.write(head_of(response.status_code, headers) + body)
        seconds = self._loop.time() - self._since
        self._state["metrics"].answered("", "", response.status_code, seconds)
        self._end()


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
