"""A request from outside: its id, its count and, where that is asked for, its line of the log."""

import logging
import re
import secrets
from itertools import count
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What is taken over from a caller: short, and harmless wherever it is shown.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=-]{1,128}")

# Of W3C Trace Context's header what is logged is the trace's id. A version to come may have more
# behind these four parts, and 00 may not; ff is none.
TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)

# Else an id is made: no other worker's, on no other host.
_worker = secrets.token_hex(8).encode()
_numbers = count(1)

access_log = logging.getLogger("onerow.access")


def new_id() -> bytes:
    """Return an id for a request that came without one."""
    return b"%s-%x" % (_worker, next(_numbers))


def trace_id_of(headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return the id of the trace that the caller says the request is of, or None."""
    given = [value for name, value in headers if name == b"traceparent"]
    # Twice, it is not known which one is meant.
    found = TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    return found[1].decode() if found else None


class Observe:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, *, log_requests: bool) -> None:
        self.app = app
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its id, and count it when it is answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        state = scope["state"]
        id_ = dict(scope["headers"]).get(b"x-request-id", b"")
        if not REQUEST_ID.fullmatch(id_):
            id_ = new_id()
        state["request_id"] = id_.decode()
        status = 0  # no answer: the task was cancelled at the end of the process

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", id_))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            status = 500  # by ServerErrorMiddleware, outside of this one
            raise
        finally:
            seconds = perf_counter() - started
            route = getattr(scope.get("route"), "path", "")
            state["metrics"].answered(scope["method"], route, status, seconds)
            if self._log_requests:
                fields = {
                    "method": scope["method"],
                    # As sent: a space in it could be the line's own.
                    "path": scope["raw_path"].decode(),
                    "status": status,
                    "ms": round(seconds * 1000, 1),
                    "request_id": id_.decode(),
                }
                line = "%s %s %d, %.1f ms, id %s"
                if trace_id := trace_id_of(scope["headers"]):
                    fields["trace_id"] = trace_id
                    line += ", trace %s"
                access_log.info(line, *fields.values(), extra={"fields": fields})
