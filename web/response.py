"""The answers of the endpoints that are no problems, and what their headers say."""

from urllib.parse import quote

import msgspec
from starlette.responses import Response

from web.validation import as_sent


def path_of(resource: str, id_: object) -> str:
    """Return the path of a row, whatever is in its id."""
    segment = quote(as_sent(id_), safe="")
    if segment in (".", ".."):  # which clients take for the way up, if they do not see through this
        segment = segment.replace(".", "%2E")
    return f"/{resource}/{segment}"


def moved(location: str) -> Response:
    """Return the redirect to where a merged row went."""
    return Response(status_code=308, headers={"Location": location})


def answer(content: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")
