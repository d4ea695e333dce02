"""GET /: where to go from here, for whoever has only the address."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from web.endpoint import Endpoint
from web.response import answer

# What is there beside the resources, by what the answer calls it.
PATHS = {
    "openapi": "/openapi.json",
    "inspect": "/inspect",
    "ready": "/ready",
    "metrics": "/metrics",
}


def route(endpoints: Iterable[Endpoint]) -> Route:
    """Return the route, which sends browsers to the pages and tells others the paths in JSON."""
    paths = {"resources": [f"/{each.name}" for each in endpoints], **PATHS}

    async def root(request: Request) -> Response:
        # Browsers ask for HTML by name, and other clients for anything, or for JSON.
        if "text/html" in request.headers.get("accept", "").lower():
            return Response(status_code=303, headers={"Location": PATHS["inspect"]})
        return answer(paths)

    return Route("/", root)
