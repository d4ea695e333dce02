"""/metrics for Prometheus: the counts of all workers together, whichever worker answers."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.pool import Pool
from db.transaction import Attempts, Unavailable
from web.series import Metric, Series
from web.traffic import Traffic

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger("onerow")

# The methods that have a label of their own: those of the routes, and "" for what was no request.
# All others share one, because a client may send any word, and each label stays until the service
# ends, with 14 lines of text for each path. 33 methods on each path made 900 KB.
METHODS = ("GET", "HEAD", "POST", "DELETE", "")
OTHER = "other"

# Seconds between two readings of the pool's gauges, a fraction of the usual time between scrapes.
POOL_INTERVAL = 1.0

# The buckets for durations, in seconds: from a request that finds its row to twice the default
# deadline. Those for attempts grow as the Fibonacci numbers do.
DURATIONS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
ATTEMPTS = (1, 2, 3, 5, 8, 13, 21)


def _snake(kind: type[Exception]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


_KINDS: list[type[Exception]] = [Unavailable, *Unavailable.__subclasses__()]
REASONS = [_snake(kind) for kind in _KINDS]


REQUESTS = Metric(
    "histogram",
    "onerow_http_request_duration_seconds",
    "From a request's headers to its answer's end; a label is empty where there is none.",
    ("method", "route", "status"),
    DURATIONS,
)
ROWS = Metric(
    "counter",
    "onerow_rows",
    "Rows that POSTs were answered with, by whether they were created or existing.",
    ("resource", "outcome"),
)
TRANSACTIONS = Metric(
    "histogram",
    "onerow_transaction_attempts",
    "Attempts that the transaction of a POST or DELETE took.",
    ("method", "resource"),
    ATTEMPTS,
)
RETRIES = Metric(
    "counter",
    "onerow_transaction_retries",
    "Attempts of POSTs and DELETEs that were run again, by SQLSTATE.",
    ("sqlstate",),
)
UNAVAILABLE = Metric(
    "counter",
    "onerow_unavailable",
    "Requests that the database could not serve, by what was not available.",
    ("reason",),
)
DEFECTS = Metric("counter", "onerow_defects", "Requests that were answered with 500.")
POOL_TIMEOUTS = Metric(
    "counter", "onerow_pool_timeouts", "Waits for a connection that were in vain."
)
POOL_SIZE = Metric("gauge", "onerow_pool_size", "Database connections, all workers'.")
POOL_IN_USE = Metric(
    "gauge",
    "onerow_pool_in_use",
    "Of those, how many a request has.",
)
POOL_WAITING = Metric("gauge", "onerow_pool_waiting", "Requests waiting for a connection.")

METRICS = [
    *(REQUESTS, ROWS, TRANSACTIONS, RETRIES, UNAVAILABLE, DEFECTS),
    *(POOL_TIMEOUTS, POOL_SIZE, POOL_IN_USE, POOL_WAITING),
]


class Metrics:
    """What one worker counts, for Prometheus and, in web.traffic, for the picture."""

    def __init__(self, folder: Path, traffic: Traffic) -> None:
        self._traffic = traffic
        self._series = Series(folder, METRICS)
        for reason in REASONS:
            self._series.add(UNAVAILABLE, reason, number=0)
        self._series.add(DEFECTS, number=0)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that took `seconds`; method and route are "" where there was none."""
        if method not in METHODS:
            method = OTHER
        self._series.observe(REQUESTS, method, route, status, value=seconds)
        if status == 500:
            self._series.add(DEFECTS)

    def row(self, resource: str, *, created: bool) -> None:
        """Count a row that a POST found or made."""
        outcome = "created" if created else "existing"
        self._series.add(ROWS, resource, outcome)
        self._traffic.count(outcome)

    def transaction(self, method: str, resource: str, attempts: Attempts) -> None:
        """Count a transaction's attempts, whether it succeeded or not."""
        if attempts.begun:
            self._series.observe(TRANSACTIONS, method, resource, value=attempts.begun)
        if method == "POST" and attempts.retried:
            self._traffic.count("retried", len(attempts.retried))
        for sqlstate in attempts.retried:
            self._series.add(RETRIES, sqlstate)

    def unavailable(self, error: Exception) -> None:
        """Count an answer of 503."""
        self._series.add(UNAVAILABLE, _snake(type(error)))

    @asynccontextmanager
    async def watching(self, pool: Pool) -> AsyncIterator[None]:
        """Keep the pool's gauges up to date until the block ends."""
        task = asyncio.create_task(self._watch(pool))
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self, pool: Pool) -> None:
        timeouts = 0
        while True:
            self._series.add(POOL_TIMEOUTS, number=pool.timeouts - timeouts)
            timeouts = pool.timeouts
            self._series.set(POOL_SIZE, pool.size - pool.missing)
            self._series.set(POOL_IN_USE, pool.size - pool.missing - pool.idle)
            self._series.set(POOL_WAITING, pool.waiting)
            await asyncio.sleep(POOL_INTERVAL)

    def text(self) -> bytes:
        """Return the sums of all workers, those that have ended included, for Prometheus."""
        return generate_latest(self._series)


async def metrics(request: Request) -> Response:
    """Answer with the metrics.

    A thread sums them up. That takes time, because each worker that has ended has left a file.
    """
    text = await asyncio.to_thread(request.state.metrics.text)
    return Response(text, media_type=CONTENT_TYPE)


ROUTES = [Route("/metrics", metrics)]
