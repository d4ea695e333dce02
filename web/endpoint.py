"""A resource with the types that its requests must fit, and the calls of its handlers."""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.resources import Resource, parents
from db.transaction import Attempts
from web.errors import ERROR_HANDLERS, on_error
from web.fields import Types, types


class Endpoint(NamedTuple):
    """A resource, the types of its requests, and the resources that it refers to."""

    resource: Resource
    types: Types
    parents: dict[str, str]  # by field, the name of the resource whose id the field holds

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.resource.name

    @property
    def id(self) -> str:
        """The id in a route's path. An id that is a text may have slashes in it."""
        return "{id:path}" if self.resource.id.kind in ("text", "enum") else "{id}"


def endpoints(resources: dict[str, Resource]) -> list[Endpoint]:
    """Return an endpoint for each resource."""
    return [
        Endpoint(each, types(each), parents(resources, name)) for name, each in resources.items()
    ]


Handler = Callable[[Endpoint, Request], Awaitable[Response]]


def route(path: str, endpoint: Endpoint, **handlers: Handler) -> Route:
    """Return the route of a path, with a handler for each method."""
    handlers["HEAD"] = handlers["GET"]  # web.answer leaves out the body

    async def handle(request: Request) -> Response:
        return await handlers[request.method](endpoint, request)

    return Route(path, handle, methods=list(handlers))


def timed(handler: Callable[[Endpoint, Request, Attempts], Awaitable[Response]]) -> Handler:
    """Return the handler with Server-Timing on each of its answers, and its attempts counted.

    It answers the handler's errors itself, so that their answers have the header, too.
    """

    async def handle(endpoint: Endpoint, request: Request) -> Response:
        attempts = Attempts()
        started = perf_counter()
        try:
            response = await handler(endpoint, request, attempts)
        except tuple(ERROR_HANDLERS) as error:
            response = await on_error(request, error)
        finally:
            request.state.metrics.transaction(request.method, endpoint.name, attempts)
        milliseconds = (perf_counter() - started) * 1000 if attempts.begun else 0
        timing = f'db;dur={milliseconds:.1f};desc="attempts={attempts.begun}"'
        response.headers["Server-Timing"] = timing
        return response

    return handle
