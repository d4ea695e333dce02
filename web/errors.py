"""Answers the exceptions that a handler may raise."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.refusal import is_refusal
from db.transaction import KeyNotStored, QueueFull, ServerFault, Unavailable
from web.problem import RETRY_AFTER, http_exception, unavailable
from web.validation import Invalid, invalid_input, unprocessable, wrong

log = logging.getLogger("onerow")

ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]

# Seconds before the answer that the queue is full. Clients that ask again at once, whatever
# Retry-After says, would otherwise take all of the processor for refusals. So they wait here for as
# long as Retry-After says. With a quarter of that, 2,000 such clients got a third fewer rows.
QUEUE_FULL_PAUSE = RETRY_AFTER


async def on_unavailable(request: Request, error: Exception) -> Response:
    """Answer Unavailable with 503, and write the request and the cause into the log."""
    request.state.metrics.unavailable(error)
    if isinstance(error, QueueFull):  # not logged, because thousands a second may come, all alike
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
    """Answer an error of the database with 422 if it is_refusal(), or else with 503."""
    if not is_refusal(error):
        if getattr(error, "sqlstate", None) is None:
            raise error  # psycopg has raised it, and not the server, so it is a defect
        fault = ServerFault()
        fault.__cause__ = error
        return await on_unavailable(request, fault)
    return unprocessable(wrong("", "is refused by the table"))


async def on_key_not_stored(_request: Request, error: Exception) -> Response:
    """Answer KeyNotStored with 422 and a pointer to the field."""
    assert isinstance(error, KeyNotStored)
    if error.item is not None:
        detail = "is refused by the table, which keeps no row, or one with another key"
        return unprocessable(wrong("", detail, error.item))
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

HANDLED = tuple(ERROR_HANDLERS)


async def on_error(request: Request, error: Exception) -> Response:
    """Answer an exception by its handler in ERROR_HANDLERS, or raise it if there is none."""
    for kind, handler in ERROR_HANDLERS.items():
        if isinstance(error, kind):
            return await handler(request, error)
    raise error
