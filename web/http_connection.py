"""A client's connection. Its time and memory are bounded, whatever the client does.

This is a protocol for uvicorn's server, which accepts the connections, and closes them when the
process ends.
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
from web.head import MAX_HEAD, Request
from web.observation import new_id
from web.problem import problem, unavailable
from web.request import Awaits, Requests

# Seconds that a client has for the headers of a request, from the first byte on, or from the
# beginning of the connection. 16 KB take a fraction of that even on a slow line.
HEAD_TIMEOUT = 10

# Seconds that a client has to read an answer when it is complete. The longest answer from rows that
# the service has written is a list of 1,000 with MAX_BODY bytes each, some 16 MB by default, for
# which 550 KB a second are enough. A client whose body is answered line by line has as long, and
# `body_timeout` besides, to send the next part of the body.
READ_TIMEOUT = 30

# Seconds between two checks of these limits, which are all longer.
CHECK = 1.0

# The most bytes of answers in a process that clients have not read yet. Sixteen clients may be slow
# to read the longest answer of /inspect, which has some 4 MB, or four to read the longest list.
# Beyond that the slowest client is cut off, and so is one whose answer alone is longer, as rows of
# other writers may make it.
MAX_UNREAD = 64 * 2**20

# The most bytes that a process holds of requests without an answer, beside one body as large as the
# settings allow. This is room for 2,000 requests with the longest head and body of the default
# settings.
MAX_HELD = 64 * 2**20

# Seconds for which bytes that a client sends behind its last answer are read and dropped. If they
# were left unread, the kernel would reset the connection, and the client might not see that answer.
LINGER = 2

# The most connections that a process serves, each of which takes some 5 KB while it is idle. Where
# the process may open few files, it is a third of those. As many again are answered with 503, and
# connections beyond them are closed. The last third of the files is for everything else, such as
# the connections to the database.
MAX_CONNECTIONS = 3000

# The connections whose clients have not read what was sent. The first has waited longest.
_behind: dict["HttpConnection", None] = {}


class Limits(NamedTuple):
    """Limits from the settings. The application's lifespan puts them into its state as `limits`."""

    body: int  # the most bytes of a body
    array: int  # the most bytes of a body that is a JSON array
    body_timeout: float  # the most seconds from the end of the headers to the end of the body


class HttpConnection(asyncio.Protocol):
    """Reads one request whole, then lets the application answer it, then reads the next.

    So the application never begins with a request that is malformed or incomplete. Only a streamed
    body is read while the application answers it.
    """

    # Whether this process is about to end, so that each answer is the last on its connection.
    draining: ClassVar[bool] = False

    # How many bytes this process holds of requests that it has not answered.
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
        self._requests = Requests(self._limits.body, self._limits.array)
        self._awaits = Awaits.HEAD
        self._idle = False  # whether nothing has come since the last answer
        self._answer: Answer | None = None  # the answer that is due
        self._writable = asyncio.Event()
        self._writable.set()
        self._held = 0  # this connection's part of `held`
        self._paused = False  # whether reading is paused, because too much was sent ahead
        self._eof = False  # whether the client has ended its side; it may still read
        self._over = False  # whether the last answer of the connection is written
        self._since = 0.0  # when the client's turn began, by the loop's clock

    def connection_made(self, transport: Any) -> None:
        """Count the connection, and begin to check its limits."""
        self.transport = transport
        self._addresses = {
            side: (transport.get_extra_info(name) or ("", 0))[:2]
            for side, name in (("client", "peername"), ("server", "sockname"))
        }
        connections = self._server.connections
        connections.add(self)  # type: ignore[arg-type]  # uvicorn declares its own protocols only
        self._since = self._loop.time()
        self._watch = self._loop.call_later(CHECK, self._check)
        excess = len(connections) - max_connections()
        if excess > max_connections():
            self.transport.abort()
        elif excess > 0:
            self._refuse(unavailable("Too many connections."))

    def connection_lost(self, _error: Exception | None) -> None:
        """Count the connection no more, and tell its answer that the client is gone."""
        self._watch.cancel()
        _behind.pop(self, None)
        self._hold(0)
        self._server.connections.discard(self)
        if self._answer is not None:
            self._answer.disconnect()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, or keep them while an answer is due, as many as one request may have."""
        if self._over or self.transport.is_closing():
            return
        is_fed = self._answer is not None and self._answer.feeding
        if self._answer is not None and not (self._answer.keep_alive or is_fed):
            return  # the answer that is due ends the connection
        self._requests.data += data
        self._hold(self._held + len(data))
        if self._answer is None:
            self._advance()
        elif is_fed:
            self._since = self._loop.time()
            self._feed()
        elif self._holds_too_much():
            self._answer.keep_alive = False
            self._forget()
        if self._answer is not None and len(self._requests.data) > MAX_HEAD + self._limits.body:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Return whether the connection stays open, which it does while an answer is due."""
        self._eof = True
        # Without the rest of a streamed body there is no whole answer.
        return self._answer is not None and not self._answer.feeding

    def _hold(self, size: int) -> None:
        HttpConnection.held += size - self._held
        self._held = size

    def _holds_too_much(self) -> bool:
        return HttpConnection.held > MAX_HELD + max(self._limits.body, self._limits.array)

    def _forget(self) -> None:
        """Drop the bytes that have arrived behind the request that is being answered."""
        self._requests = Requests(self._limits.body, self._limits.array)
        self._hold(0)

    def _advance(self) -> None:
        """Parse what has arrived, and start an answer if a request is complete."""
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
            if came.headers.streamed:
                self._feed()
            return
        assert isinstance(came, Awaits)  # the parts of a streamed body are for _feed()
        if came is not Awaits.HEAD and self._awaits is Awaits.HEAD:
            self._since = self._loop.time()
        if came is Awaits.BODY_AFTER_CONTINUE:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._awaits = came

    def _feed(self) -> None:
        """Hand the parts of a streamed body to the answer, until it has enough of them."""
        answer = self._answer
        if answer is None or self.transport.is_closing():
            return
        try:
            while answer.feeding and not answer.is_full:
                part = next(self._requests)
                if not isinstance(part, bytes):
                    break
                answer.feed(part)
        except HTTPException as error:
            if answer.started:
                self.transport.abort()  # nothing else can be said behind a part of the answer
            else:
                self._answer = None
                answer.disconnect()
                self._refuse(problem(error.status_code, error.detail, error.headers))
            return
        self._hold(len(self._requests.data) + answer.unread)
        if not answer.is_full:
            self._resume()
        elif answer.feeding and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _start(self, request: Request) -> None:
        answer = Answer(
            request, self.transport, self._writable, self._server, self._answered, self._feed
        )
        if self.draining:
            answer.keep_alive = False
        self._answer = answer
        scope = answer.scope(state=self._state.copy(), **self._addresses)
        task = self._loop.create_task(answer.run(self._config.loaded_app, scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _answered(self) -> None:
        """After an answer, go on with the client's next request, or end the connection."""
        assert self._answer is not None
        self._since = self._loop.time()
        # The unread rest of a streamed body would be taken for the next request.
        last, self._answer = self._answer.feeding or not self._answer.keep_alive, None
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
        """End our side of the connection, and drop what the client still sends."""
        self._over = True
        self._since = self._loop.time()
        self._forget()
        if self._eof:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()
            self._resume()

    def pause_writing(self) -> None:
        """Stop writing, and close the slowest readers while more than MAX_UNREAD is unread."""
        self._writable.clear()
        _behind[self] = None
        while sum(one.transport.get_write_buffer_size() for one in _behind) > MAX_UNREAD:
            slowest = next(iter(_behind))
            del _behind[slowest]
            slowest.transport.abort()

    def resume_writing(self) -> None:
        """Go on writing, because the client has read enough."""
        _behind.pop(self, None)
        self._writable.set()
        if self._answer is not None:
            self._since = self._loop.time()  # a client that reads gets more time for the rest

    def drain(self) -> None:
        """Make the answer that is due the last one, and let its headers say so."""
        if self._answer is not None and not self._answer.started:
            self._answer.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection when no answer is due, at the latest before the server gives up."""
        HttpConnection.draining = True
        if self._answer is not None:
            self._answer.keep_alive = False
        elif self._awaits is Awaits.HEAD and not self._over:
            self.transport.close()  # no request has begun before its head is complete
        grace = self._config.timeout_graceful_shutdown
        assert grace is not None
        self._loop.call_later(grace - CHECK / 2, self.transport.abort)

    def _check(self) -> None:
        """Close the connection if it has been the client's turn for too long."""
        self._watch = self._loop.call_later(CHECK, self._check)
        if self.transport.get_write_buffer_size() > 0:
            limit: float = READ_TIMEOUT
        elif self._over:
            limit = LINGER
        elif self._answer is not None and self._answer.feeding:
            # The lines that have arrived may take as long as a request may, before more is read.
            limit = READ_TIMEOUT + self._limits.body_timeout
        elif self._answer is not None:
            return  # the application is at work, and has limits of its own
        elif self._idle:
            limit = self._config.timeout_keep_alive
        elif self._awaits is Awaits.HEAD:
            limit = HEAD_TIMEOUT
        else:
            limit = self._limits.body_timeout
        since = self._since if self._answer is None else max(self._since, self._answer.written)
        if self._loop.time() - since <= limit:
            return
        if self._awaits is not Awaits.HEAD and not self._over and self._answer is None:
            self._refuse(problem(408, "The body did not arrive in time."))
        else:
            self.transport.abort()

    def _refuse(self, response: Response) -> None:
        """Answer with a problem, without the application, and close the connection."""
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
    """Return how many connections this process serves, after raising its limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = 3 * MAX_CONNECTIONS
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == unlimited else min(MAX_CONNECTIONS, soft // 3)
