"""The endpoints' answers other than problems, and the paths in their headers."""

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from web.validation import as_sent


def path_of(resource: str, id_: object) -> str:
    """Return the path of a row, with its id escaped."""
    if type(id_) is int:  # not isinstance(), which would take a bool for an int
        return f"/{resource}/{id_}"
    segment = quote(as_sent(id_), safe="")
    if segment in (".", ".."):  # clients would resolve these segments as they are
        segment = segment.replace(".", "%2E")
    return f"/{resource}/{segment}"


def moved(location: str) -> Response:
    """Return the redirect to the row that a merge kept."""
    return Response(status_code=308, headers={"Location": location})


def answer(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")
