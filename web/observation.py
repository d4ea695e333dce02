"""What is recorded of each request: its id, its count and, with LOG_REQUESTS, its log line."""

import logging
import re
import secrets
from collections.abc import Iterable
from itertools import count
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The ids that are taken over from callers. They are short, and harmless wherever they are shown.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=-]{1,128}")

# The header of W3C Trace Context. Later versions may have more behind these four parts, version 00
# may not, and ff is no version. Only the trace's id, the second part, is logged.
TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)

# The start of the ids that this worker makes, which no other worker on any host has.
_worker = secrets.token_hex(8).encode()
_numbers = count(1)

access_log = logging.getLogger("onerow.access")


def new_id() -> bytes:
    """Return an id for a request that came without one."""
    return b"%s-%x" % (_worker, next(_numbers))


def trace_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the id of the trace that the caller's `traceparent` names, or None."""
    given = [value for name, value in headers if name == b"traceparent"]
    # If there are two, it is not known which one is meant.
    found = TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    return found[1].decode() if found else None


class Observe:
    """ASGI middleware that stands around all others."""

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
        id_ = dict(scope["headers"]).get(b"x-request-id")
        if id_ is None or not REQUEST_ID.fullmatch(id_):
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
            status = 500  # ServerErrorMiddleware, outside of this one, answers so
            raise
        finally:
            seconds = perf_counter() - started
            route = getattr(scope.get("route"), "path", "")
            state["metrics"].answered(scope["method"], route, status, seconds)
            if self._log_requests:
                fields = {
                    "method": scope["method"],
                    # Log it as sent, because a decoded space could seem to end the path.
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
