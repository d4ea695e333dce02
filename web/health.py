"""/live and /ready, for whoever restarts the service and whoever sends it requests."""

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
from web.problem import unavailable
from web.serving import is_draining

log = logging.getLogger("onerow")

# Seconds: a probe must have its answer before it gives up, which is often after two.
READY_DEADLINE = 1.0


def routes(resources: Sequence[str]) -> list[Route]:
    """Return the routes; `resources` are the tables without which it is not ready."""

    told = ""  # what the log was told last: why this process is not ready

    async def ready(request: Request) -> Response:
        nonlocal told
        if is_draining():
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
    """Tell that the process answers."""
    return JSONResponse({"status": "live"})


async def check_ready(pool: Pool, resources: Sequence[str]) -> list[str]:
    """Return what is wrong although a POST would be served, by db.doctor.readiness.

    Raises Unavailable if a POST would not find connection, tables and a server that writes.
    """

    deadline, served = monotonic() + READY_DEADLINE, pool.served
    try:
        return await transact(pool, partial(shortcomings, names=resources), seconds=READY_DEADLINE)
    except (QueueFull, NoConnection):
        # Busy is ready, as long as others are through with theirs: without this instance, the load
        # would only be on the rest.
        while pool.served == served:
            if monotonic() > deadline:
                raise
            await asyncio.sleep(READY_DEADLINE / 20)
        return []
