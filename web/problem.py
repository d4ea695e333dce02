"""Errors as RFC 9457 problem details, none of which repeats what the client sent."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **members: object
) -> Response:
    """Return an application/problem+json response. `members` are further members of the object."""
    content = {
        "type": "about:blank",  # RFC 9457, 4.2.1: the title must then be the status's phrase
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(msgspec.json.encode(content), status, headers, "application/problem+json")


# Seconds after which a client may send its request again. A conflict is over by then, and a
# database that was restarted is back.
RETRY_AFTER = 1


def unavailable(detail: str) -> Response:
    """Return the 503 that asks the client to send the request again."""
    return problem(503, detail, {"Retry-After": str(RETRY_AFTER)})


async def http_exception(_request: Request, error: Exception) -> Response:
    """Answer an HTTPException of Starlette or of a handler with its status."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def defect(request: Request, _error: Exception) -> Response:
    """Answer an exception without a handler, which is a defect. web.answer logs its trace."""
    # Starlette calls this outside of the middleware that adds the id to all other answers.
    return problem(
        500, "This is a defect of the service.", {"X-Request-Id": request.state.request_id}
    )


def no_row() -> Response:
    """Return the answer to an id that no row has."""
    return problem(404, "There is no row with this id.")
