"""Measures what a host adds and what stands in between costs, and holds a model against both."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from itertools import chain, islice
from os import cpu_count
from statistics import median
from time import perf_counter
from typing import NamedTuple

import psutil
import psycopg

from db.settings import Settings
from tests.bench.keys import DEPARTMENTS, OLD_ROWS, Key, Regime, exist, new
from tests.bench.load import send
from tests.bench.operations import post
from tests.bench.processes import cpu_seconds
from tests.faults.cluster.cluster import Cluster, balanced
from tests.faults.cluster.network import NETWORK
from tests.faults.cluster.postgres import Node
from tests.faults.proxy import Proxy
from tests.faults.scene import event_loop
from tests.support.haproxy import HAProxy
from tests.support.pgbouncer import PGBOUNCER, pooling
from tests.support.service import LIMIT, Service, sql

ROWS = 20_000
CONNECTIONS = 32
ROUNDS = 3
SECONDS = 2
KEYS_A_SECOND = 10_000  # more than any way can post

# Seconds that a message takes one way, in the same town and to a neighbouring country.
DELAYS = (0.001, 0.005)

# The round trips of a POST in pipeline mode, whether there is a row or not.
ROUND_TRIPS = 2


@dataclass(frozen=True)
class Way:
    """A way to the database that has its turns."""

    name: str
    haproxy: HAProxy
    services: list[Service]


@dataclass(frozen=True)
class Figures:
    """The medians of a way and a regime; times are a processor's microseconds for each request."""

    rate: float  # requests a second
    service: float
    database: float
    rest: float  # that of the client, HAProxy, and the kernel for all of them

    @property
    def machine(self) -> float:
        """The processor's time of all processes."""
        return self.service + self.database + self.rest


class Latencies(NamedTuple):
    """Latencies in seconds, of one client that is alone."""

    commit: float  # until a row is on the disk
    round_trips: dict[str, float]  # to PostgreSQL and back, by the way's name


def median_of(statement: str, url: str) -> float:
    """Return the median of the seconds that this statement takes."""
    times = []
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(50):
            started = perf_counter()
            connection.execute(statement)
            times.append(perf_counter() - started)
    return median(times)


def turn(way: Way, node: Node, keys: Regime) -> Figures:
    """Post for some seconds."""

    def used() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        everything = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
        services = sum(cpu_seconds(service.process.pid) for service in way.services)
        database = cpu_seconds(node.pid)
        return services, database, everything - services - database

    wanted = list(islice(keys(ROWS, f"{random.getrandbits(32):x}"), SECONDS * KEYS_A_SECOND))
    before = used()
    load = send(way.haproxy.port, post(wanted), CONNECTIONS, SECONDS)
    each = [
        (later - earlier) / load.requests * 1e6
        for earlier, later in zip(before, used(), strict=True)
    ]
    assert not load.refused
    assert not load.broken
    return Figures(load.requests / load.seconds, *each)


def half(rows: int, mark: str) -> Iterator[Key]:
    """Yield keys of which one half exists and the other is new."""
    return chain.from_iterable(zip(exist(rows, mark), new(rows, mark), strict=False))


REGIMES: dict[str, Regime] = {"exist": exist, "half": half, "new": new}


def measure(ways: list[Way], node: Node) -> dict[tuple[str, str], Figures]:
    """Let all ways have their turns, round by round."""
    found: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(ROUNDS):
        for way in ways:
            for name, keys in REGIMES.items():
                found.setdefault((way.name, name), []).append(turn(way, node, keys))
    return {key: medians(figures) for key, figures in found.items()}


def medians(figures: list[Figures]) -> Figures:
    """Return the median of each figure."""
    return Figures(*map(median, zip(*map(astuple, figures), strict=True)))


def fill(node: Node) -> None:
    """Make the rows that `exist` asks for."""
    sql(node.url, "INSERT INTO departments (name)"
        f" SELECT 'department ' || n FROM generate_series(1, {DEPARTMENTS}) AS n")  # fmt: skip
    with psycopg.connect(node.url, autocommit=True) as connection:
        connection.execute(OLD_ROWS.replace("%s", str(ROWS)))  # no parameter, for SQL's % is there
        connection.execute("ANALYZE")


@contextmanager
def ways(cluster: Cluster) -> Iterator[tuple[list[Way], Latencies]]:
    """Yield one, two and three hosts, and one host with something between it and PostgreSQL."""
    node = cluster.primary
    commit = median_of("INSERT INTO departments (name) VALUES ('commit')", node.url)
    latencies = Latencies(commit - median_of("SELECT", node.url), {})
    groups = {f"{n} host{'s' * (n > 1)}": cluster.services[:n] for n in (1, 2, 3)}
    with ExitStack() as stack:
        start = stack.enter_context(event_loop())

        def stop(proxy: Proxy) -> None:
            start(proxy.close()).result(LIMIT)

        for delay in DELAYS:
            proxy = Proxy(f"{node.url}&port=5432", random.Random(), f"{NETWORK}.1")
            proxy.delay = delay
            start(proxy.listen()).result(LIMIT)
            stack.callback(stop, proxy)
            between = stack.enter_context(cluster.serving(proxy.url))
            name = f"1 host, {delay * 2000:.0f} ms"
            groups[name] = [between]
            latencies.round_trips[name] = median_of("SELECT", proxy.url)
        if PGBOUNCER is not None:
            server = f"postgresql://postgres@{node.host.address}:5432/postgres"
            pgbouncer = stack.enter_context(pooling(server, f"{NETWORK}.1"))
            between = stack.enter_context(cluster.serving(pgbouncer.url, POOLER="1"))
            groups["1 host, pgbouncer"] = [between]
        made = [
            Way(name, stack.enter_context(balanced(services)), services)
            for name, services in groups.items()
        ]
        yield made, latencies


def standby_cost(cluster: Cluster) -> dict[tuple[str, str], Figures]:
    """Measure one host with and without the wait for the standby, in turns."""
    found: dict[tuple[str, str], list[Figures]] = {}
    node = cluster.primary
    with balanced(cluster.services[:1]) as haproxy:
        for _ in range(ROUNDS):
            for name, wait in (("asynchronous standby", False), ("synchronous standby", True)):
                node.wait_for_standby(wait)
                way = Way(name, haproxy, cluster.services[:1])
                for regime, keys in REGIMES.items():
                    found.setdefault((name, regime), []).append(turn(way, node, keys))
    return {key: medians(figures) for key, figures in found.items()}


def report(found: dict[tuple[str, str], Figures]) -> str:
    """Return the table of what was measured."""
    lines = [
        "| | keys | requests/s | µs service | µs PostgreSQL | µs all else |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {regime} | {each.rate:,.0f} | {each.service:.0f} | {each.database:.0f}"
        f" | {each.rest:.0f} |"
        for (name, regime), each in found.items()
    ]
    return "\n".join(lines)


def model(found: dict[tuple[str, str], Figures], latencies: Latencies) -> str:
    """Return what the model makes of one host's times, beside what was measured.

    A request takes some time of the service's processor, and some of all processors, which are this
    machine's. It keeps one of the pool's connections for that time, for two round trips, and for
    the commit of a new row.
    """
    cores, pool = cpu_count() or 1, Settings().pool_size
    old, fresh = found["1 host", "exist"], found["1 host", "new"]

    def predicted(new_keys: float, hosts: int, round_trip: float) -> float:
        service, database, machine = (
            (1 - new_keys) * getattr(old, name) + new_keys * getattr(fresh, name)
            for name in ("service", "database", "machine")
        )
        kept = (service + database) / 1e6 + ROUND_TRIPS * round_trip + new_keys * latencies.commit
        return float(min(hosts * 1e6 / service, cores * 1e6 / machine, hosts * pool / kept))

    cases = [(f"{hosts} host{'s' * (hosts > 1)}", hosts, 0.0) for hosts in (1, 2, 3)]
    cases += [(name, 1, seconds) for name, seconds in latencies.round_trips.items()]
    lines = ["| | keys | model | measured |", "|---|---|---|---|"]
    for name, hosts, round_trip in cases:
        for regime, new_keys in (("exist", 0), ("half", 0.5), ("new", 1)):
            rate = predicted(new_keys, hosts, round_trip)
            measured = found[name, regime].rate
            lines.append(f"| {name} | {regime} | {rate:,.0f} | {measured:,.0f} |")
    told = "; ".join(f"{name}: {1e3 * s:.1f} ms" for name, s in latencies.round_trips.items())
    lines.append(f"\nA commit takes {1e3 * latencies.commit:.1f} ms, a round trip {told}.")
    return "\n".join(lines)
