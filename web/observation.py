"""A request from outside: its id, its count and, where that is asked for, its line of the log."""

import logging
import re
import secrets
from itertools import count
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What is taken over from a caller: short, and harmless wherever it is shown.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=-]{1,128}")

# Else an id is made: no other worker's, on no other host.
_worker = secrets.token_hex(8).encode()
_numbers = count(1)

access_log = logging.getLogger("onerow.access")


def new_id() -> bytes:
    """Return an id for a request that came without one."""
    return b"%s-%x" % (_worker, next(_numbers))


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
                line = "%s %s %d, %.1f ms, id %s"
                path = scope["raw_path"].decode()  # as sent: a space in it could be the line's own
                access_log.info(line, scope["method"], path, status, seconds * 1000, id_.decode())
