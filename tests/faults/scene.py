"""The service under traffic, its network and its database, which a fault strikes at."""

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

# Seconds. It is short, so that a request that begins with an outage ends in it.
RETRY_DEADLINE = 2.0

WORKERS = 2

# The clients keep so few connections busy. One that died unseen while it was idle would cost the
# request that takes it, which might be long after the fault.
POOL_SIZE = 4


@dataclass
class Scene:
    """The service, its network, its database and its traffic, and what can be done to them."""

    server: Server
    database: str  # its URL, past the proxy
    service: Service
    proxy: Proxy
    traffic: Traffic
    going: Future[None]  # is done when the traffic has ended
    start: Callable[[Coroutine[Any, Any, None]], Future[None]]
    hits: int = 0  # how often the fault struck, where neither proxy nor traffic counts that

    @property
    def struck(self) -> int:
        """How often the fault has struck, in the fault's own measure."""
        return self.hits + self.proxy.struck + len(self.traffic.left)

    def do(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step of the proxy in its event loop."""
        self.start(step).result(LIMIT)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. Raises what has ended the traffic meanwhile."""
        until(lambda: self.going.done() or condition())
        if self.going.done():
            self.going.result()

    def end(self) -> int:
        """End the traffic, and then the service; return the service's exit status.

        The service must first be through with requests whose callers are gone.
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
    """A fault, and what it may cost."""

    name: str
    strikes: Callable[[Scene], AbstractContextManager[None]]  # its end lifts the fault
    costs: tuple[int | None, ...] = ()  # statuses of a refusal that it may cause; None is no answer
    down: bool = False  # whether nothing can be served, which /ready must say
    breaks_commits: bool = False  # whether a request may find the row that it made itself
    proxied: bool = False  # whether the service is behind the proxy
    kills_workers: bool = False
    disk: str = ""  # the size of a file system for its own server, if it needs one
    deadline: float = RETRY_DEADLINE  # seconds


@contextmanager
def staged(
    fault: Fault, server: Server, rng: random.Random, *command: str, **settings: str
) -> Iterator[Scene]:
    """Start everything; `command` and `settings` go to tests.support.service.serving()."""
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
            service.connections_break = True
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
        # The loop is asyncio's own, for uvloop's close() waits for ever where a test that failed
        # has left a listener.
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
