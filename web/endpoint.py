"""A resource with the types that its requests must fit, and the calls of its handlers."""

import re
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from db.engine import Engine
from db.resources import Resource, parents
from db.transaction import Attempts
from web.errors import ERROR_HANDLERS, on_error
from web.fields import Types, types


class Endpoint(NamedTuple):
    """A resource, the types of its requests, and the resources that it refers to."""

    resource: Resource
    types: Types
    parents: dict[str, str]  # by field, the name of the resource whose id the field holds
    takes_many: bool  # whether a request may have many keys

    @property
    def name(self) -> str:
        return self.resource.name

    @property
    def id(self) -> str:
        """The id in a route's path. An id that is a text may have slashes in it."""
        return "{id:path}" if self.resource.id.kind in ("text", "enum") else "{id}"


def endpoints(resources: dict[str, Resource], engine: Engine) -> list[Endpoint]:
    """Return an endpoint for each resource."""
    return [
        # The files for many keys need what only PostgreSQL has.
        Endpoint(each, types(each), parents(resources, name), each.takes_many and not engine.folder)
        for name, each in resources.items()
    ]


Handler = Callable[[Endpoint, Request, Attempts], Awaitable[Response]]

# The methods whose answers say how long their transaction took.
TIMED = ("POST", "DELETE")


def route(path: str, endpoint: Endpoint, **handlers: Handler) -> Route:
    """Return the route of a path, with a handler for each method."""
    handlers["HEAD"] = handlers["GET"]  # the server drops the body

    async def handle(request: Request) -> Response:
        attempts = Attempts()
        if request.method not in TIMED:
            return await handlers[request.method](endpoint, request, attempts)
        started = perf_counter()
        try:
            response = await handlers[request.method](endpoint, request, attempts)
        except tuple(ERROR_HANDLERS) as error:
            response = await on_error(request, error)
        finally:
            request.state.metrics.transaction(request.method, endpoint.name, attempts)
        if isinstance(response, StreamingResponse):
            return response  # its transactions are still to come
        milliseconds = (perf_counter() - started) * 1000 if attempts.begun else 0
        timing = f'db;dur={milliseconds:.1f};desc="attempts={attempts.begun}"'
        response.headers["Server-Timing"] = timing
        return response

    return Route(path, handle, methods=list(handlers))


def exact(*routes: Route) -> list[Route]:
    """Return routes whose paths match as a whole.

    Starlette's patterns end with $, which also matches before a newline at the end, and their dot
    matches no newline, which an id may have.
    """
    for each in routes:
        each.path_regex = re.compile(each.path_regex.pattern.removesuffix("$") + r"\Z", re.DOTALL)
    return list(routes)
