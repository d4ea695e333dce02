"""/live for a supervisor, which restarts the service, and /ready for a load balancer."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from time import monotonic

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from db.doctor.readiness import shortcomings
from db.pool import Pool
from db.transaction import NoConnection, QueueFull, Unavailable, transact
from web.http_connection import HttpConnection
from web.problem import unavailable

log = logging.getLogger("onerow")

# Seconds in which /ready must have an answer. Probes often give up after two seconds.
READY_DEADLINE = 1.0


def routes(resources: Sequence[str]) -> list[Route]:
    """Return the routes. `resources` are those whose tables /ready looks for."""

    told = ""  # the reason that was logged last; empty while this process is ready

    async def ready(request: Request) -> Response:
        nonlocal told
        if HttpConnection.draining:
            return unavailable("The service is about to end.")
        try:
            warnings = await check_ready(request.state.pool, resources)
        except Unavailable as error:
            if told != str(error):
                log.warning("not ready: %s", error)
            told = str(error)
            return unavailable(told)
        if told:
            log.info("ready again")
        told = ""
        return JSONResponse({"status": "ready", **({"warnings": warnings} if warnings else {})})

    return [Route("/live", live), Route("/ready", ready)]


async def live(_request: Request) -> Response:
    """Answer with 200, which shows that the process answers."""
    return JSONResponse({"status": "live"})


async def check_ready(pool: Pool, resources: Sequence[str]) -> list[str]:
    """Return warnings of db.doctor.readiness, none of which keeps a POST from being served.

    Raises Unavailable if a POST would find no connection, no tables or a read-only server.
    """

    deadline, served = monotonic() + READY_DEADLINE, pool.served
    try:
        return await transact(pool, partial(shortcomings, names=resources), seconds=READY_DEADLINE)
    except (QueueFull, NoConnection):
        # A busy service is ready as long as requests get through. If the balancer took it out, the
        # other instances would only get its load, too.
        while pool.served == served:
            if monotonic() > deadline:
                raise
            await asyncio.sleep(READY_DEADLINE / 20)
        return []
