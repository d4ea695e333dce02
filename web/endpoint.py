"""A resource with the types that its requests must fit, and the code that calls its handlers."""

import re
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from db.engine import Engine
from db.resources import Resource, parents
from db.transaction import Attempts
from web.errors import HANDLED, on_error
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
    def id_in_path(self) -> str:
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

# The methods whose answers say how long the handler took, with its waits and attempts.
TIMED = ("POST", "DELETE")


def route(path: str, endpoint: Endpoint, **handlers: Handler) -> Route:
    """Return the route of a path, with a handler for each method."""
    handlers["HEAD"] = handlers["GET"]  # the server drops the body
    return Route(path, Handlers(endpoint, handlers), methods=list(handlers))


class Handlers:
    """The ASGI application of a path. Starlette's own for a function adds two calls."""

    def __init__(self, endpoint: Endpoint, handlers: dict[str, Handler]) -> None:
        self._endpoint = endpoint
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the handler of the method, and say how long a POST or a DELETE took."""
        request, attempts = Request(scope, receive, send), Attempts()
        method, started = scope["method"], perf_counter()
        try:
            response = await self._handlers[method](self._endpoint, request, attempts)
        except HANDLED as error:
            response = await on_error(request, error)
        finally:
            scope["state"]["metrics"].transaction(method, self._endpoint.name, attempts)
        # The transactions of a streamed answer are still to come.
        if method in TIMED and not isinstance(response, StreamingResponse):
            milliseconds = (perf_counter() - started) * 1000 if attempts.begun else 0
            timing = b'db;dur=%.1f;desc="attempts=%d"' % (milliseconds, attempts.begun)
            response.raw_headers.append((b"server-timing", timing))
        await response(scope, receive, send)


class ByName(BaseRoute):
    """The routes of all resources. A path begins with the name of the resource that it is for.

    Starlette alone would try the routes of all resources, one after the other.
    """

    def __init__(self, routes: dict[str, list[Route]]) -> None:
        self.routes = {name: exact(*each) for name, each in routes.items()}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return how the best of the routes matches, and what it adds to the scope."""
        name = scope["path"][1:].partition("/")[0]
        best = Match.NONE
        child: Scope = {}
        for route in self.routes.get(name, ()):
            match, found = route.matches(scope)
            if match is Match.FULL:
                return match, {**found, "route": route}
            if match is Match.PARTIAL and best is Match.NONE:
                best, child = match, {**found, "route": route}
        return best, child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route that matched answer.

        Starlette puts this object into the scope as the route, and then what matches() returned.
        """
        await scope["route"].handle(scope, receive, send)


def exact(*routes: Route) -> list[Route]:
    """Return routes whose paths match as a whole.

    Starlette's patterns end with $, which also matches before a newline at the end, and their dot
    matches no newline, which an id may have.
    """
    for each in routes:
        each.path_regex = re.compile(each.path_regex.pattern.removesuffix("$") + r"\Z", re.DOTALL)
    return list(routes)
