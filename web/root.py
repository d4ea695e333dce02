"""GET / leads to the pages and the paths of the service."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from web.endpoint import Endpoint
from web.response import answer

# The paths beside those of the resources, by their names in the answer.
PATHS = {
    "openapi": "/openapi.json",
    "inspect": "/inspect",
    "ready": "/ready",
    "metrics": "/metrics",
}


def route(endpoints: Iterable[Endpoint]) -> Route:
    """Return the route. It sends browsers to the pages, and answers others with the paths."""
    paths = {"resources": [f"/{each.name}" for each in endpoints], **PATHS}

    async def root(request: Request) -> Response:
        # Browsers name text/html in Accept. Other clients accept anything, or JSON.
        if "text/html" in request.headers.get("accept", "").lower():
            return Response(status_code=303, headers={"Location": PATHS["inspect"]})
        return answer(paths)

    return Route("/", root)
