"""Lets a creator stall between its select and its insert, while others are served."""

from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from tests.faults.proxy import Proxy
from tests.faults.scene import event_loop
from tests.support.others import make_others
from tests.support.others import others as pass_by
from tests.support.service import LIMIT, Service, serving, sql, until

# Counts the sessions that wait, in a transaction, for their client. Only a stalled one waits for
# so long.
WAITING = """
SELECT count(*)
FROM pg_stat_activity
WHERE datname = current_database()
  AND wait_event = 'ClientRead'
  AND backend_xmin IS NOT NULL
  AND clock_timestamp() > xact_start + interval '100 milliseconds'
"""


def has_looked(database: str) -> bool:
    """Return whether a creator stalls that has looked, so that it has its snapshot."""
    return sql(database, WAITING) != [(0,)]


@dataclass
class Stage:
    """Two instances of the service, of which the slow one is behind a network that can stall."""

    database: str
    slow: Service
    fast: Service
    _proxy: Proxy
    _thread: ThreadPoolExecutor
    _start: Callable[[Coroutine[Any, Any, None]], Future[None]]

    def race(
        self, name: str, others: int, *, array: bool = False
    ) -> tuple[list[httpx.Response], int]:
        """Let the slow one stall on a new department, the fast one make it, and others pass.

        The slow one is asked with an array if `array`. Returns the answers of both, and how many
        rows the department has.
        """
        stalled = self._proxy.stall(name)
        body: object = [{"name": name}] if array else {"name": name}
        slow = self._thread.submit(self.slow.http.post, "/departments", json=body)
        assert stalled.wait(LIMIT)
        until(lambda: has_looked(self.database))
        fast = self.fast.post("/departments", name=name)
        pass_by(self.database, others)
        self._start(self._proxy.resume()).result(LIMIT)
        answers = [slow.result(LIMIT), fast]
        ((rows,),) = sql(self.database, "SELECT count(*) FROM departments WHERE name = %s", name)
        return answers, rows


@contextmanager
def stage(database: str, *command: str, url: str = "", **settings: str) -> Iterator[Stage]:
    """Start both instances.

    `url` leads to the database by way of a pooler; the rest are the arguments of serving().
    """
    make_others(database)
    proxy = Proxy(url or database, Random())
    with ExitStack() as stack:
        start = stack.enter_context(event_loop())
        start(proxy.listen()).result(LIMIT)
        stack.callback(lambda: start(proxy.close()).result(LIMIT))
        # The stalled request must outlast the others, however long they take.
        settings = {"RETRY_DEADLINE": "60", "POOL_SIZE": "2", **settings}
        slow, fast = (
            stack.enter_context(serving(*command, DATABASE_URL=each, **settings))
            for each in (proxy.url, url or database)
        )
        thread = stack.enter_context(ThreadPoolExecutor(1))
        yield Stage(database, slow, fast, proxy, thread, start)
