"""Runs an overload, and rolling restarts, under traffic, and judges them."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from time import perf_counter

from tests.faults.verdict import Verdict
from tests.proof.linearizability import Call, Key, Row, check
from tests.support.haproxy import HAProxy, balancing, free_port
from tests.support.raw import Caller
from tests.support.service import Service, both_serve, serving, sql, until

# The rows of the table.
OVERLOAD = "2,000 connections"
ROLLING_RESTART = "rolling restart behind HAProxy"

# A turn takes a second, and the median counts, for a checkpoint may slow down one or two.
TURNS = 9

# So many requests ask for one key. They come one after the other from whatever client is free.
SAME_KEY = 16


@dataclass
class Traffic:
    """Clients of one port, each of which posts its next department when it has its answer."""

    port: int
    calls: list[Call] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    async def clients(self, number: int, enough: Callable[[], bool]) -> None:
        """Keep so many clients at work until `enough`."""
        async with asyncio.TaskGroup() as group:
            for client in range(number):
                group.create_task(self._client(client, enough))

    async def _client(self, number: int, enough: Callable[[], bool]) -> None:
        caller = Caller(self.port)
        while not enough():
            key = Key("departments", f"department {next(self._numbers) // SAME_KEY}")
            start = perf_counter()
            try:
                answer = await caller.call("POST", "/departments", {"name": key.name})
            except (OSError, EOFError):
                self.calls.append(Call(number, "POST", key, start))
                await caller.close()
                continue
            assert answer.status != 503 or int(answer.headers["retry-after"]) > 0
            rows: tuple[Row, ...] = ()
            if answer.status in (200, 201):
                rows = (Row(key.table, answer.json()["id"], answer.json()["name"]),)
            end = perf_counter()
            attempts = re.search(r"attempts=(\d+)", answer.headers.get("server-timing", ""))
            self.calls.append(
                Call(
                    number,
                    "POST",
                    key,
                    start,
                    end,
                    answer.status,
                    rows,
                    attempts=int(attempts[1]) if attempts else 0,
                )
            )
        await caller.close()

    def __str__(self) -> str:
        told = ", ".join(
            f"{number:,} answered with {status}" if status else f"{number:,} not answered"
            for status, number in self.statuses.most_common()
        )
        return f"of {len(self.calls):,} requests {told}"

    @property
    def statuses(self) -> Counter[int | None]:
        """How many answers had each status; None where no answer came."""
        return Counter(call.status for call in self.calls)

    def verdict(self, name: str, database: str, recovery: float) -> Verdict:
        """Judge the answers by the table at the end.

        A request without an answer counts as lost, and so does a row that was promised and is not
        there. Raises NotLinearizable where nothing is lost and still no order explains the answers.
        """
        found = sql(database, "SELECT id, name FROM departments ORDER BY id")
        rows = tuple(Row("departments", *columns) for columns in found)
        promised = {row for call in self.calls for row in call.rows}
        lost = self.statuses[None] + len(promised - set(rows))
        doubled = len(rows) - len({row.name for row in rows})
        if not lost and not doubled:
            now = perf_counter()
            check([*self.calls, Call(-1, "TABLE", None, now, now, 200, rows)], before=[])
        longest = max(call.end - call.start for call in self.calls if call.status is not None)
        return Verdict(name, len(self.calls), lost, doubled, longest, recovery)


@dataclass
class Instances:
    """Two services on one database, each of which can be replaced by a new one on its port."""

    database: str
    haproxy: HAProxy
    _stacks: dict[int, ExitStack]
    _services: dict[int, Service] = field(default_factory=dict)

    def start(self, port: int) -> None:
        settings = {"PORT": str(port), "DATABASE_URL": self.database, "DRAIN_SECONDS": "1"}
        service = self._stacks[port].enter_context(serving(**settings))
        self._services[port] = service

    def restart(self) -> float:
        """Replace each; return the longest time until one was back in HAProxy's rotation."""
        longest = 0.0
        for port, stack in self._stacks.items():
            begun = perf_counter()
            assert self._services[port].stop() == 0
            stack.close()
            self.start(port)
            until(lambda: self.haproxy.up() == len(self._stacks))
            longest = max(longest, perf_counter() - begun)
        return longest


@contextmanager
def two_instances(database: str) -> Iterator[Instances]:
    """Start two services and HAProxy before them."""
    with ExitStack() as stack:
        stacks = {free_port(): stack.enter_context(ExitStack()) for _ in range(2)}
        haproxy = stack.enter_context(balancing([f"127.0.0.1:{port}" for port in stacks]))
        instances = Instances(database, haproxy, stacks)
        for port in stacks:
            instances.start(port)
        until(lambda: haproxy.up() == len(stacks))
        yield instances


def rolling_restarts(
    database: str, *, clients: int = 20, times: int = 3, requests: int = 10_000
) -> tuple[Traffic, Verdict]:
    """Restart each of two instances `times` times, one after the other, under load.

    Here a request without its 2xx counts as lost.
    """
    with two_instances(database) as instances:
        traffic = Traffic(instances.haproxy.port)
        restarted = 0

        async def run() -> float:
            nonlocal restarted
            load = asyncio.create_task(
                traffic.clients(
                    clients, lambda: restarted == times and len(traffic.calls) >= requests
                )
            )
            longest = 0.0
            while restarted < times:
                longest = max(longest, await asyncio.to_thread(instances.restart))
                restarted += 1
            await load
            return longest

        recovery = asyncio.run(run())
        verdict = traffic.verdict(ROLLING_RESTART, database, recovery)
        refused = sum(status not in (200, 201, None) for status in traffic.statuses.elements())
        return traffic, verdict._replace(lost=verdict.lost + refused)


def overload(
    database: str, another: str, *, connections: int = 2000, seconds: float = 15
) -> tuple[Traffic, Verdict, float]:
    """Post from so many connections for some seconds.

    Returns also the throughput afterwards, as a multiple of that of a spared service on another
    database. The two take turns, so that whatever else the machine does weighs on both.
    """

    def served(traffic: Traffic, clients: int, seconds: float) -> int:
        before, end = len(traffic.calls), perf_counter() + seconds
        asyncio.run(traffic.clients(clients, lambda: perf_counter() > end))
        return sum(call.status in (200, 201) for call in traffic.calls[before:])

    with (
        serving(DATABASE_URL=database, WORKERS="2") as service,
        serving(DATABASE_URL=another, WORKERS="2") as spared,
    ):
        # Connections that are shared out to a worker wait until it is up.
        until(lambda: both_serve(service))
        traffic, usual = Traffic(service.port), Traffic(spared.port)
        served(traffic, connections, seconds)
        ended = perf_counter()
        until(lambda: service.post("/departments", name="department 0").status_code == 200)
        recovery = perf_counter() - ended
        turns = [[served(each, 32, 1.0) for each in (traffic, usual)] for _ in range(TURNS)]
        afterwards, otherwise = (median(column) for column in zip(*turns, strict=True))
        return traffic, traffic.verdict(OVERLOAD, database, recovery), afterwards / otherwise
