"""onerow: get or create a row, one row per key under any concurrency.

This file reads as a request runs: routes, handlers, and then the start, which is `python app.py`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # an older one fails at the imports below
    sys.exit(
        f"onerow needs Python 3.11 or later, and this is {sys.version.split()[0]}:"
        " use another, as in `make run PYTHON=python3.13`"
    )

import logging
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import psycopg
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.answers import open_inspection_pool
from db.embedded import database_url
from db.engine import discover
from db.pool import open_pool
from db.refusal import is_refusal
from db.resources import FOLDER, RESOURCES, check_resources
from db.rows import Retired, look_up, read
from db.rows import delete as delete_row
from db.schema import apply_schema
from db.session import engine_of
from db.settings import read_settings, without_secrets
from db.signals import unwind_on_signals
from db.texts import say
from db.transaction import Attempts, Unavailable, transact
from db.watch import Watch
from web import health, metrics, openapi, pages, provenance, root
from web.browsers import OwnPages
from web.check import arguments, check
from web.creation import LOCK_AFTER, PAGE_LOCKS, answer_of, count_rows, found_or_created
from web.endpoint import ByName, Endpoint, endpoints, exact, route
from web.errors import ERROR_HANDLERS
from web.health import check_ready
from web.http_connection import Limits
from web.lines import create_lines
from web.log import log_to_stderr
from web.metrics import Metrics
from web.observation import Observe
from web.problem import defect, no_row, problem
from web.response import answer, moved, path_of
from web.serving import end_in_order, serve
from web.shared import shared_folder
from web.token import RequireToken
from web.traffic import Traffic
from web.validation import (
    Invalid,
    as_sent,
    as_text,
    from_array,
    from_body,
    from_path,
    from_query,
    has_lines,
    is_array,
    json_body,
    prefers_strict,
    wrong,
)

if __name__ == "__main__" and arguments().check:  # first, because a wrong setting ends the start
    sys.exit(0 if check() else 1)
settings = read_settings()
log_to_stderr(settings.log_format)
log = logging.getLogger("onerow")
check_resources()


def routes(endpoint: Endpoint) -> list[Route]:
    """Return a resource's routes, one for each path, so that a 405 lists all that it allows."""
    return [
        route(f"/{endpoint.name}", endpoint, GET=list_, POST=create),
        *provenance.routes(endpoint, settings.retry_deadline),
        route(f"/{endpoint.name}/{endpoint.id_in_path}", endpoint, GET=get, DELETE=delete),
    ]


# The handlers. Each validates, transacts, answers.


async def create(endpoint: Endpoint, request: Request, attempts: Attempts) -> Response:
    """Get or create the row of a key, or of each key in an array or in lines."""
    if endpoint.takes_many and has_lines(request):
        return await create_lines(
            endpoint, request, most=settings.max_body, seconds=settings.retry_deadline
        )
    body = json_body(request)
    if endpoint.takes_many and is_array(body):
        return await create_many(endpoint, request, body, attempts)
    ((row, copies, created),) = await found_or_created(
        endpoint,
        request.state.pool,
        [as_text(from_body(body, endpoint.types.body))],
        seconds=settings.retry_deadline,
        attempts=attempts,
    )
    headers = {"Location": path_of(endpoint.name, row["id"])}
    if copies > 1:
        headers["Duplicates"] = str(copies)
        if prefers_strict(request):
            return problem(412, f"{copies} rows have this key.", headers)
    response = answer(row, 201 if created else 200, headers)
    request.state.metrics.row(endpoint.name, created=created)
    return response


async def create_many(
    endpoint: Endpoint, request: Request, body: bytes, attempts: Attempts
) -> Response:
    """Get or create the row of each key in an array, all of them or none."""
    items = [as_text(each) for each in from_array(body, endpoint.types.body, settings.max_body)]
    outcomes = await found_or_created(
        endpoint,
        request.state.pool,
        items,
        seconds=settings.retry_deadline,
        attempts=attempts,
        lock_after=LOCK_AFTER if len(items) <= PAGE_LOCKS else 1,
    )
    answers = [answer_of(request, each) for each in outcomes]
    response = answer(answers)
    count_rows(endpoint, request, answers)
    return response


async def get(endpoint: Endpoint, request: Request, _attempts: Attempts) -> Response:
    """Return one row, or a redirect to the row that a merge kept in its place."""
    id_ = as_sent(from_path(request, "id", endpoint.types.id))
    found = await look_up(request.state.pool, endpoint.name, id_, settings.retry_deadline)
    if found is None:
        return no_row()
    if isinstance(found, Retired):
        return moved(path_of(endpoint.name, found.kept))
    return answer(found)


async def list_(endpoint: Endpoint, request: Request, _attempts: Attempts) -> Response:
    """Return one page of rows by id, and the link to the next."""
    deadline = monotonic() + settings.retry_deadline
    parameters = as_text(from_query(request, endpoint.types.filter))
    fields = endpoint.resource.files["list"].parameters
    pairs = zip(fields, parameters, strict=True)
    given = {field.name: value for field, value in pairs if value is not None}
    # A filter that needs others finds no index without them, and PostgreSQL would read all rows.
    alone = [
        wrong(field.name, f"needs {', '.join(field.needs)}")
        for field in endpoint.resource.filters
        if field.name in given and not {*field.needs} <= {*given}
    ]
    if alone:
        raise Invalid(alone)
    # Don't prepare this. A fresh plan fits the filters that are given, and the table as it is now.
    # After five uses of a prepared list PostgreSQL may use one plan for all filters, which may read
    # the whole table.
    rows = await transact(
        request.state.pool,
        partial(read, query=f"{endpoint.name}/list", values=parameters, prepared=False),
        seconds=deadline - monotonic(),
    )
    if not rows:
        for name, parent in endpoint.parents.items():
            if name in given:
                where = await look_up(
                    request.state.pool, parent, given[name], deadline - monotonic()
                )
                if isinstance(where, Retired):
                    query = {**dict(request.query_params), name: where.kept}
                    return moved(f"/{endpoint.name}?{urlencode(query)}")
    limit = int(given["limit"])
    items, following = rows[:limit], None
    if rows[limit:]:
        query = {**dict(request.query_params), "after": as_sent(items[-1]["id"])}
        following = f"/{endpoint.name}?{urlencode(query)}"
    return answer({"items": items, "next": following})


async def delete(endpoint: Endpoint, request: Request, attempts: Attempts) -> Response:
    """Delete one row, and the rows that refer to it with ON DELETE CASCADE."""
    id_ = as_sent(from_path(request, "id", endpoint.types.id))
    try:
        deleted = await transact(
            request.state.pool,
            partial(delete_row, resource=endpoint.name, id_=id_),
            seconds=settings.retry_deadline,
            attempts=attempts,
        )
    except psycopg.DatabaseError as error:
        if not is_refusal(error):
            raise
        return problem(409, "Rows of another table refer to this one, or a trigger protects it.")
    return Response(status_code=204) if deleted else no_row()


# The start.


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Hold the pools and the traffic's counts for as long as the worker serves."""
    end_in_order(settings.drain_seconds)
    async with open_pool(settings) as pool, open_inspection_pool(settings) as inspection_pool:
        try:
            for warning in await check_ready(pool, list(RESOURCES)):
                log.warning("%s", warning)
        except (Unavailable, psycopg.Error) as error:
            # Serve all the same: the database may come later. psycopg's text might quote a row.
            told = error if isinstance(error, Unavailable) else type(error).__name__
            log.warning("not ready: %s", told)
        with shared_folder() as folder:
            traffic = Traffic(folder)
            counts = Metrics(folder, traffic)
            limits = Limits(settings.max_body, settings.max_array_body, settings.retry_deadline)
            async with counts.watching(pool):
                log.info("worker %d begins", os.getpid())
                yield {
                    "pool": pool,
                    "inspection_pool": inspection_pool,
                    "traffic": traffic,
                    "metrics": counts,
                    "limits": limits,
                }
                log.info("worker %d ends", os.getpid())


ENDPOINTS = endpoints(RESOURCES, engine_of(settings))

app = Starlette(
    routes=[
        ByName({each.name: routes(each) for each in ENDPOINTS}),
        *exact(
            root.route(ENDPOINTS),
            *health.routes(list(RESOURCES)),
            openapi.route(ENDPOINTS, token=bool(settings.tokens), guessable=settings.is_guessable),
            *pages.ROUTES,
            *metrics.ROUTES,
        ),
    ],
    middleware=[
        Middleware(Observe, log_requests=settings.log_requests),
        *([Middleware(OwnPages, settings.hosts)] if settings.is_guessable else []),
        *([Middleware(RequireToken, settings.tokens)] if settings.tokens else []),
    ],
    lifespan=lifespan,
    exception_handlers={**ERROR_HANDLERS, Exception: defect},
)
app.router.redirect_slashes = False  # /departments/ is no path of the service, and gets 404


def main() -> None:
    """Serve until SIGTERM or Ctrl-C, on the embedded server if there is no DATABASE_URL."""
    unwind_on_signals()
    with database_url(settings) as url, shared_folder():
        if settings.database_url is None:
            apply_schema(url)
        os.environ["DATABASE_URL"] = url  # for the workers, which import this module anew
        if settings.engine is None:
            with suppress(psycopg.Error):  # the server may start later
                os.environ["ENGINE"] = discover(url)
        serve(
            "app:app",
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            # A body may take as long to arrive as the attempts that follow it.
            grace=math.ceil(2 * settings.retry_deadline) + 1,
            drain=settings.drain_seconds,
            changed=Watch(FOLDER).changed if settings.reload else None,
            listening=lambda address: say(first_line(address, url)),
        )


def first_line(address: str, url: str) -> str:
    """Return a line with the address and the database, without a password or another secret."""
    line = f"onerow serves {address}, database {without_secrets(url)}"
    if settings.database_url is None:
        line += f", data in {Path(settings.data_dir).absolute()}"
    return line


if __name__ == "__main__":
    main()
