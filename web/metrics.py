"""/metrics for Prometheus: the counts of all workers together, whichever worker answers."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.pool import Pool
from db.transaction import Attempts, Unavailable
from web.traffic import FOLDER, Traffic

# Each worker has a metrics file of each kind, which is written in full before prometheus_client
# opens it. prometheus_client makes sparse files, and a write into a hole of a full memory file
# system kills the process. 256 KB hold some thousand series; prometheus_client makes a full file
# larger.
KINDS = ("counter", "histogram", "gauge_livesum")
FILE_SIZE = 2**18

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


def _make_files() -> None:
    """Make this worker's files. Raises OSError."""
    folder = Path(os.environ[FOLDER])
    folder.mkdir(exist_ok=True)  # a cleanup of temporary folders may have removed it
    for kind in KINDS:
        file = folder / f"{kind}_{os.getpid()}.db"
        begun = file.with_suffix(".begun")
        begun.write_bytes(bytes(FILE_SIZE))
        begun.rename(file)


class Metrics:
    """What one worker counts, for Prometheus and, in web.traffic, for the picture."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        try:
            _make_files()
        except OSError as error:
            log.warning("each worker has only its own metrics: %s", type(error).__name__)
            os.environ.pop(FOLDER, None)
        # prometheus_client reads the variable FOLDER when it is imported, so the import is here.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = registry = CollectorRegistry()
        self._requests = Histogram(
            "onerow_http_request_duration_seconds",
            "From a request's headers to its answer's end; a label is empty where there is none.",
            ["method", "route", "status"],
            buckets=DURATIONS,
            registry=registry,
        )
        self._rows = Counter(
            "onerow_rows",
            "Rows that POSTs were answered with, by whether they were created or existing.",
            ["resource", "outcome"],
            registry=registry,
        )
        self._attempts = Histogram(
            "onerow_transaction_attempts",
            "Attempts that the transaction of a POST or DELETE took.",
            ["method", "resource"],
            buckets=ATTEMPTS,
            registry=registry,
        )
        self._retries = Counter(
            "onerow_transaction_retries",
            "Attempts of POSTs and DELETEs that were run again, by SQLSTATE.",
            ["sqlstate"],
            registry=registry,
        )
        self._unavailable = Counter(
            "onerow_unavailable",
            "Requests that the database could not serve, by what was not available.",
            ["reason"],
            registry=registry,
        )

        self._defects = Counter(
            "onerow_defects",
            "Requests that were answered with 500.",
            registry=registry,
        )
        self._pool_timeouts = Counter(
            "onerow_pool_timeouts",
            "Waits for a connection that were in vain.",
            registry=registry,
        )

        def pool_gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, multiprocess_mode="livesum", registry=registry)

        self._pool_size = pool_gauge("onerow_pool_size", "Database connections, all workers'.")
        self._pool_in_use = pool_gauge(
            "onerow_pool_in_use",
            "Of those, how many are not idle: a request has it, or it is being made.",
        )
        self._pool_waiting = pool_gauge("onerow_pool_waiting", "Requests waiting for a connection.")

        # prometheus_client opens a file at the first series of its kind. This does so now, and not
        # while a request waits.
        for reason in REASONS:
            self._unavailable.labels(reason)
        self._requests.labels("GET", "/metrics", 200)

        # prometheus_client takes as long to find a series by its labels as to count in it.
        self._request = cache(self._requests.labels)
        self._row = cache(self._rows.labels)
        self._transaction = cache(self._attempts.labels)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that took `seconds`; method and route are "" where there was none."""
        if method not in METHODS:
            method = OTHER
        self._request(method, route, status).observe(seconds)
        if status == 500:
            self._defects.inc()

    def row(self, resource: str, *, created: bool) -> None:
        """Count a row that a POST found or made."""
        outcome = "created" if created else "existing"
        self._row(resource, outcome).inc()
        self._traffic.count(outcome)

    def transaction(self, method: str, resource: str, attempts: Attempts) -> None:
        """Count a transaction's attempts, whether it succeeded or not."""
        if attempts.begun:
            self._transaction(method, resource).observe(attempts.begun)
        if method == "POST" and attempts.retried:
            self._traffic.count("retried", len(attempts.retried))
        for sqlstate in attempts.retried:
            self._retries.labels(sqlstate).inc()

    def unavailable(self, error: Exception) -> None:
        """Count an answer of 503."""
        self._unavailable.labels(_snake(type(error))).inc()

    @asynccontextmanager
    async def watching(self, pool: Pool) -> AsyncIterator[None]:
        """Keep the pool's gauges up to date until the block ends, and then close the files."""
        from prometheus_client.values import close_all_multiprocess_files

        task = asyncio.create_task(self._watch(pool))
        try:
            yield
        finally:
            task.cancel()
            close_all_multiprocess_files()  # type: ignore[no-untyped-call]

    async def _watch(self, pool: Pool) -> None:
        timeouts = 0
        while True:
            self._pool_timeouts.inc(pool.timeouts - timeouts)
            timeouts = pool.timeouts
            self._pool_size.set(pool.size - pool.missing)
            self._pool_in_use.set(pool.size - pool.missing - pool.idle)
            self._pool_waiting.set(pool.waiting)
            await asyncio.sleep(POOL_INTERVAL)


async def metrics(request: Request) -> Response:
    """Answer with the metrics.

    A thread sums them up. That takes time, because each worker that has ended has left a file.
    """
    text = await asyncio.to_thread(_text, request.state.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE)


def _text(own: Any) -> bytes:
    """Sum up the files of all workers, including those that have ended."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    if FOLDER not in os.environ:
        return generate_latest(own)
    _forget_the_pools_of_dead_workers()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_the_pools_of_dead_workers() -> None:
    from prometheus_client.multiprocess import mark_process_dead

    for file in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, PermissionError):  # it ended; another user's process has its id
            with suppress(FileNotFoundError):  # another worker has removed the file first
                mark_process_dead(pid)  # type: ignore[no-untyped-call]


ROUTES = [Route("/metrics", metrics)]
