"""Errors as RFC 9457 problem details. None repeats what the client sent."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **members: object
) -> Response:
    """Return an application/problem+json response; `members` extend the object."""
    content = {
        "type": "about:blank",  # RFC 9457: the title is then the status code's own phrase
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(
        msgspec.json.encode(content), status, dict(headers or {}), "application/problem+json"
    )


# Seconds. By then a conflict is over and a restarted database back; a client may wait longer.
RETRY_AFTER = 1


def unavailable(detail: str) -> Response:
    """Return the 503 that asks to send the request again."""
    return problem(503, detail, {"Retry-After": str(RETRY_AFTER)})


async def http_exception(_request: Request, error: Exception) -> Response:
    """Answer what Starlette, or a handler, raised with a status of its own."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def defect(request: Request, _error: Exception) -> Response:
    """Answer an exception that nothing expected; the server logs its trace."""
    # Starlette answers it outside of all middleware, which adds the id to the others.
    return problem(
        500, "This is a defect of the service.", {"X-Request-Id": request.state.request_id}
    )
