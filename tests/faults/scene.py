"""What a fault strikes at: the service under traffic, its network and its database."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import psutil

from tests.faults.proxy import Proxy
from tests.faults.server import Server
from tests.faults.traffic import Traffic
from tests.support.service import LIMIT, Service, serving, until

T = TypeVar("T")

# Seconds; short, so that what begins with an outage ends in it.
RETRY_DEADLINE = 2.0

WORKERS = 2

# So few that the clients keep all of them busy. One that dies unseen while it is idle costs the
# request that takes it, which may be long after the fault.
POOL_SIZE = 4


@dataclass
class Scene:
    """All of it, with what a fault and its trial do to it."""

    server: Server
    database: str  # its URL, past the proxy
    service: Service
    proxy: Proxy
    traffic: Traffic
    going: Future[None]  # the traffic's end
    start: Callable[[Coroutine[Any, Any, None]], Future[None]]
    hits: int = 0  # of the fault, where neither proxy nor traffic count them

    @property
    def struck(self) -> int:
        """How often the fault has struck, in its own measure."""
        return self.hits + self.proxy.struck + len(self.traffic.left)

    def do(self, step: Coroutine[Any, Any, None]) -> None:
        """Take a step of the proxy's."""
        self.start(step).result(LIMIT)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until this is so while the traffic goes on."""
        until(lambda: self.going.done() or condition())
        if self.going.done():
            self.going.result()

    def end(self) -> int:
        """End the traffic, and then the service, which must be through with it; return its status.

        Who is gone may have left a request that still waits for its connection.
        """
        self.traffic.over = True
        self.going.result(LIMIT)
        return self.service.stop()

    def workers(self) -> list[psutil.Process]:
        """Return the service's workers."""
        return [
            process
            for process in psutil.Process(self.service.process.pid).children()
            if _runs_worker(process)
        ]


def _runs_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False  # it is gone, or about to be


class Fault(NamedTuple):
    """A row of the table."""

    name: str
    strikes: Callable[[Scene], AbstractContextManager[None]]  # its end lifts the fault
    costs: tuple[int | None, ...] = ()  # what callers may be told in vain: 503, None for no answer
    down: bool = False  # nothing can be served, and /ready must say so
    breaks_commits: bool = False  # who is asked again may find the row that it made itself
    proxied: bool = False
    kills_workers: bool = False
    disk: str = ""  # the size of a file system that its server has for itself
    deadline: float = RETRY_DEADLINE  # seconds


@contextmanager
def staged(
    fault: Fault, server: Server, rng: random.Random, *command: str, **settings: str
) -> Iterator[Scene]:
    """Start everything; `command` and `settings` are those of tests.support.service.serving()."""
    database = server.new_database()
    proxy = Proxy(database, rng)
    with event_loop() as start:
        if fault.proxied:
            start(proxy.listen()).result(LIMIT)
        settings = {
            "DATABASE_URL": proxy.url if fault.proxied else database,
            "WORKERS": str(WORKERS),
            "POOL_SIZE": str(POOL_SIZE),
            "RETRY_DEADLINE": str(fault.deadline),
            **settings,
        }
        with serving(*command, **settings) as service:
            traffic = Traffic(service.port, str(rng.random()))
            going = start(traffic.run())
            try:
                yield Scene(server, database, service, proxy, traffic, going, start)
            finally:
                traffic.over = True
        if fault.proxied:
            start(proxy.close()).result(LIMIT)


@contextmanager
def event_loop() -> Iterator[Callable[[Coroutine[Any, Any, T]], Future[T]]]:
    """Run an event loop in a thread of its own, and yield what starts a task in it."""
    begun: Future[asyncio.AbstractEventLoop] = Future()

    def run() -> None:
        # asyncio's own: uvloop's close() waits for ever if a test that failed has left a listener.
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            begun.set_result(loop)
            loop.run_forever()

    thread = Thread(target=run)
    thread.start()
    loop = begun.result(LIMIT)
    try:
        yield lambda task: asyncio.run_coroutine_threadsafe(task, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
