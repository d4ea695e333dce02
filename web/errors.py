"""What a handler may raise, and who answers it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.refusal import is_refusal
from db.transaction import KeyNotStored, QueueFull, ServerFault, Unavailable
from web.problem import http_exception, unavailable
from web.validation import Invalid, invalid_input, unprocessable, wrong

log = logging.getLogger("onerow")

ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]


# Seconds. Clients that ask again at once, whatever Retry-After says, would take the processor for
# being refused: with 2,000 of them, a twentieth of the usual number was served, and now half of it.
QUEUE_FULL_PAUSE = 0.25


async def on_unavailable(request: Request, error: Exception) -> Response:
    """Answer any Unavailable, and tell the log what was given up, and for what."""
    request.state.metrics.unavailable(error)
    if isinstance(error, QueueFull):  # of these there may be thousands a second, all alike
        await asyncio.sleep(QUEUE_FULL_PAUSE)
    else:
        cause = getattr(error.__cause__, "sqlstate", None) or type(error.__cause__).__name__
        where = f"{request.method} {request.scope['path']}, id {request.state.request_id}"
        fields = {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "request_id": request.state.request_id,
        }
        log.warning("given up: %s: %s (%s)", where, error, cause, extra={"fields": fields})
    return unavailable(str(error))


async def on_refusal(request: Request, error: Exception) -> Response:
    """Answer an error of the database: 422 if it is_refusal(), or else 503, told to the log."""
    if not is_refusal(error):
        if getattr(error, "sqlstate", None) is None:
            raise error  # psycopg's own, and so a defect
        fault = ServerFault()
        fault.__cause__ = error
        return await on_unavailable(request, fault)
    return unprocessable(wrong("", "is refused by the table"))


async def on_key_not_stored(_request: Request, error: Exception) -> Response:
    """Answer KeyNotStored with 422 and a pointer to the field."""
    assert isinstance(error, KeyNotStored)
    if not error.field:
        return unprocessable(wrong("", "is refused by the table, which keeps no row"))
    return unprocessable(wrong(error.field, "would be stored as another value by the table"))


ERROR_HANDLERS: dict[type[Exception], ErrorHandler] = {
    HTTPException: http_exception,
    Invalid: invalid_input,
    Unavailable: on_unavailable,
    KeyNotStored: on_key_not_stored,
    psycopg.DatabaseError: on_refusal,
}


async def on_error(request: Request, error: Exception) -> Response:
    """Answer an exception of ERROR_HANDLERS."""
    for kind, handler in ERROR_HANDLERS.items():
        if isinstance(error, kind):
            return await handler(request, error)
    raise error
