"""onerow: get or create a row, one row per key under any concurrency.

A request from top to bottom: its types, its handler, its route. `python app.py` serves it.
"""

import logging
import math
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import psycopg
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple, replace
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.change import apply_schema
from db.embedded import database_url, unwind_on_signals
from db.engine import discover
from db.inspection import open_inspection_pool
from db.pipeline import get_or_create as get_or_create_in_pipeline
from db.pool import Connection, Row, open_pool
from db.queries import QUERIES, Outcome, get_or_create, look_up, select
from db.refusal import is_refusal
from db.settings import read_settings
from db.texts import say
from db.transaction import Attempts, Unavailable, in_pipeline, serializable
from web import health, inspection, metrics, openapi
from web.browsers import OwnPages
from web.connection import Limits
from web.errors import ERROR_HANDLERS, on_error
from web.health import check_ready
from web.invisible import INVISIBLE
from web.log import log_to_stderr
from web.metrics import Metrics
from web.observation import Observe
from web.problem import defect, problem
from web.serving import end_in_order, serve
from web.token import RequireToken
from web.traffic import Traffic, shared_folder
from web.validation import (
    Invalid,
    from_body,
    from_path,
    from_query,
    json_body,
    prefers_strict,
    wrong,
)

log_to_stderr()
log = logging.getLogger("onerow")
settings = read_settings()

# What clients send. A description is also the detail of the error when the value does not fit.

BIGINT_MAX = 2**63 - 1
Id = Annotated[
    int, Meta(ge=1, le=BIGINT_MAX, description=f"must be an integer from 1 to {BIGINT_MAX}")
]
Name = Annotated[
    str,
    Meta(
        # PostgreSQL's text holds neither NUL nor surrogates; 255 characters, at most 1,020 bytes,
        # fit an entry of a btree (2,700 bytes), so that a unique constraint can be added later.
        pattern=rf"^[{INVISIBLE}]*[^{INVISIBLE}\x00\ud800-\udfff][^\x00\ud800-\udfff]*$",
        min_length=1,
        max_length=255,
        description="must be a string of 1 to 255 characters, not all blank or invisible, without "
        "NUL and without lone surrogates",
        examples=["Ada"],
    ),
]
After = Annotated[
    int, Meta(ge=0, le=BIGINT_MAX, description=f"must be an integer from 0 to {BIGINT_MAX}")
]
Limit = Annotated[int, Meta(ge=1, le=1000, description="must be an integer from 1 to 1000")]


class DepartmentKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /departments; its fields in order are the parameters of the SQL."""

    name: Annotated[Name, Meta(examples=["Research"])]


class EmployeeKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /employees; its fields in order are the parameters of the SQL."""

    department_id: Id
    name: Name


class DepartmentFilter(msgspec.Struct, forbid_unknown_fields=True):
    """The query string of GET /departments; its fields in order are the parameters of the SQL."""

    after: After = 0
    limit: Limit = 100
    name: Name | UnsetType = UNSET


class EmployeeFilter(DepartmentFilter):
    """The query string of GET /employees; its fields in order are the parameters of the SQL."""

    department_id: Id | UnsetType = UNSET


@dataclass(frozen=True)
class Resource:
    """A table with a key: its SQL is in sql/NAME/, its unique constraint, if any, is NAME_key."""

    name: str
    key: type[msgspec.Struct]
    filter: type[DepartmentFilter]
    parent: str = ""  # the resource that a field of the key refers to
    parent_field: str = ""


RESOURCES = (
    Resource("departments", DepartmentKey, DepartmentFilter),
    Resource("employees", EmployeeKey, EmployeeFilter, "departments", "department_id"),
)
NAMES = [resource.name for resource in RESOURCES]


# What answers them. Each handler validates, transacts, answers.

NO_ROW = "There is no row with this id."


async def create(resource: Resource, request: Request) -> Response:
    """Get or create the row of a key."""
    attempts = Attempts()
    started = perf_counter()
    try:
        body = await json_body(request)
        key = from_body(body, resource.key)
        started = perf_counter()
        try:
            row, copies, created = await found_or_created(resource, request, key, attempts)
        finally:
            if attempts.retried:
                request.state.traffic.count("retried", len(attempts.retried))
            request.state.metrics.transaction("POST", resource.name, attempts)
        request.state.traffic.count("created" if created else "existing")
    except tuple(ERROR_HANDLERS) as error:
        response = await on_error(request, error)
    else:
        if copies > 1 and prefers_strict(request):
            response = problem(412, f"{copies} rows have this key.")
        else:
            response = answer(row, 201 if created else 200)
            request.state.metrics.row(resource.name, created=created)
        response.headers["Location"] = f"/{resource.name}/{row['id']}"
        if copies > 1:
            response.headers["Duplicates"] = str(copies)
    response.headers["Server-Timing"] = server_timing(started, attempts)
    return response


async def found_or_created(
    resource: Resource, request: Request, key: msgspec.Struct, attempts: Attempts
) -> Outcome:
    """Get or create, with the kept row in the place of a parent that a merge retired."""
    deadline = monotonic() + settings.retry_deadline
    again = True
    while True:
        try:
            # Looked up here, where a test may have put others in their place.
            transact, steps = (
                (in_pipeline, get_or_create_in_pipeline)
                if settings.pipeline
                else (serializable, get_or_create)
            )
            return await transact(
                request.state.pool,
                partial(steps, resource=resource.name, key=astuple(key)),
                seconds=deadline - monotonic(),
                attempts=attempts,
                key_constraint=f"{resource.name}_key",
            )
        except psycopg.errors.ForeignKeyViolation:
            if not resource.parent:
                raise  # a foreign key that someone has added
            parent = getattr(key, resource.parent_field)
            where = await look_up(
                request.state.pool, resource.parent, parent, deadline - monotonic()
            )
            if where is None:
                raise Invalid([wrong(resource.parent_field, "does not exist")]) from None
            if isinstance(where, int):
                key = replace(key, **{resource.parent_field: where})
            elif again:
                again = False  # it has just been put back; or it is someone's foreign key again
            else:
                raise


async def get(resource: Resource, request: Request) -> Response:
    """Return one row, or the way to the row that a merge kept in its place."""
    id_ = from_path(request, "id", Id)
    found = await look_up(request.state.pool, resource.name, id_, settings.retry_deadline)
    if found is None:
        return problem(404, NO_ROW)
    if isinstance(found, int):
        return moved(f"/{resource.name}/{found}")
    return answer(found)


async def list_(resource: Resource, request: Request) -> Response:
    """Return one page of rows by id, and the link to the next."""
    deadline = monotonic() + settings.retry_deadline
    wanted = from_query(request, resource.filter)
    parent = getattr(wanted, resource.parent_field, UNSET)
    if resource.parent and parent is UNSET and wanted.name is not UNSET:
        # Without its parent no index finds a name, and all rows would be read.
        raise Invalid([wrong("name", f"needs {resource.parent_field}")])
    parameters = [None if value is UNSET else value for value in astuple(wanted)]
    rows = await select(
        request.state.pool, f"{resource.name}/list", parameters, deadline - monotonic()
    )
    if not rows and parent is not UNSET:
        where = await look_up(request.state.pool, resource.parent, parent, deadline - monotonic())
        if isinstance(where, int):
            query = {**dict(request.query_params), resource.parent_field: where}
            return moved(f"/{resource.name}?{urlencode(query)}")
    items, more = rows[: wanted.limit], rows[wanted.limit :]
    following = None
    if more:
        query = {**dict(request.query_params), "after": items[-1]["id"]}
        following = f"/{resource.name}?{urlencode(query)}"
    return answer({"items": items, "next": following})


async def delete(resource: Resource, request: Request) -> Response:
    """Delete one row, and what hangs on it by ON DELETE CASCADE."""
    id_ = from_path(request, "id", Id)

    async def work(connection: Connection) -> Row | None:
        query = QUERIES[f"{resource.name}/delete"]
        # Not prepared: psycopg would answer a ROLLBACK by DEALLOCATE ALL, the pipeline's included.
        return await (await connection.execute(query, [id_], prepare=False)).fetchone()

    attempts = Attempts()
    started = perf_counter()
    try:
        deleted = await serializable(
            request.state.pool, work, seconds=settings.retry_deadline, attempts=attempts
        )
        response = Response(status_code=204) if deleted else problem(404, NO_ROW)
    except psycopg.DatabaseError as error:
        if not is_refusal(error):
            raise
        response = problem(
            409, "Rows of another table refer to this one, or a trigger protects it."
        )
    finally:
        request.state.metrics.transaction("DELETE", resource.name, attempts)
    response.headers["Server-Timing"] = server_timing(started, attempts)
    return response


def server_timing(started: float, attempts: Attempts) -> str:
    """Return the header's value: milliseconds since then, and how many attempts were begun."""
    milliseconds = (perf_counter() - started) * 1000 if attempts.begun else 0
    return f'db;dur={milliseconds:.1f};desc="attempts={attempts.begun}"'


def moved(location: str) -> Response:
    """Return the redirect to where a merged row went."""
    return Response(status_code=308, headers={"Location": location})


def answer(content: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Hold the pools and the traffic's counts for as long as the worker serves."""
    end_in_order(settings.drain_seconds)
    async with open_pool(settings) as pool, open_inspection_pool(settings) as inspection_pool:
        try:
            for warning in await check_ready(pool, NAMES):
                log.warning("%s", warning)
        except (Unavailable, psycopg.Error) as error:
            # Serve all the same: it may come. The text of an error of psycopg's may quote a row.
            told = error if isinstance(error, Unavailable) else type(error).__name__
            log.warning("not ready: %s", told)
        with shared_folder() as folder:
            counts = Metrics()
            async with counts.watching(pool):
                log.info("worker %d begins", os.getpid())
                yield {
                    "pool": pool,
                    "inspection_pool": inspection_pool,
                    "traffic": Traffic(folder),
                    "metrics": counts,
                    "limits": Limits(settings.max_body, settings.retry_deadline),
                }
                log.info("worker %d ends", os.getpid())


# The routes, one for each path, so that a 405 lists all that the path allows.

Handler = Callable[[Resource, Request], Awaitable[Response]]


def route(path: str, resource: Resource, **handlers: Handler) -> Route:
    """Return the route of a path, with a handler for each method."""
    handlers["HEAD"] = handlers["GET"]  # the server drops the body

    async def endpoint(request: Request) -> Response:
        return await handlers[request.method](resource, request)

    return Route(path, endpoint, methods=list(handlers))


app = Starlette(
    routes=[
        *(route(f"/{each.name}", each, GET=list_, POST=create) for each in RESOURCES),
        *(route(f"/{each.name}/{{id}}", each, GET=get, DELETE=delete) for each in RESOURCES),
        *health.routes(NAMES),
        openapi.route(RESOURCES, Id, token=bool(settings.tokens)),
        *inspection.ROUTES,
        *metrics.ROUTES,
    ],
    middleware=[
        Middleware(Observe, log_requests=settings.log_requests),
        Middleware(RequireToken, settings.tokens)
        if settings.tokens
        else Middleware(OwnPages, settings.hosts),
    ],
    lifespan=lifespan,
    exception_handlers={**ERROR_HANDLERS, Exception: defect},
)
app.router.redirect_slashes = False  # a path is there or it is not
for each in app.router.routes:
    assert isinstance(each, Route)
    # Starlette's $ matches before a newline at the end, too.
    each.path_regex = re.compile(each.path_regex.pattern.removesuffix("$") + r"\Z")


def main() -> None:
    """Serve until SIGTERM or Ctrl-C, on the embedded server where there is no DATABASE_URL."""
    unwind_on_signals()
    with database_url(settings) as url, shared_folder():
        if settings.database_url is None:
            apply_schema(url)
        os.environ["DATABASE_URL"] = url  # for the workers, which import this module anew
        if settings.engine is None:
            with suppress(psycopg.Error):  # it may come
                os.environ["ENGINE"] = discover(url)
        serve(
            "app:app",
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            # A body may take as long as the attempts that follow it.
            grace=math.ceil(2 * settings.retry_deadline) + 1,
            drain=settings.drain_seconds,
            listening=lambda address: say(first_line(address, url)),
        )


def first_line(address: str, url: str) -> str:
    """Return what serves where, without a password or another secret."""
    given = conninfo_to_dict(url)
    # No others: libpq has several secrets, and gets new ones.
    told = ("service", "user", "host", "hostaddr", "port", "dbname")
    known = {key: given[key] for key in told if key in given}
    line = (
        f"onerow serves {address}, database {make_conninfo('', **known) or 'as PG* variables say'}"
    )
    if settings.database_url is None:
        line += f", data in {Path(settings.data_dir).absolute()}"
    return line


if __name__ == "__main__":
    main()
