"""Keys a second of arrays and lines, beside single POSTs and COPY: `python -m tests.bench.many`.

All keys are new. The ways take turns, on one service with two workers, or with --default on one
whose PostgreSQL locks as few keys one by one as it does by its defaults.
"""

import argparse
import asyncio
from collections.abc import Callable
from itertools import count, islice
from statistics import median
from time import perf_counter

import psycopg

import db.embedded
from db.signals import unwind_on_signals
from tests.bench import keys
from tests.bench.databases import Server, Table, server
from tests.bench.load import stream
from tests.bench.operations import Operation, arrays, body, posts
from tests.bench.sides import fire_at
from tests.support.service import serving

SINGLE = "single POSTs, 32 connections"
LINES = "lines, 1 request"
COPY = "COPY"
ARRAYS = {30: "arrays of 30, 8 connections", 1000: "arrays of 1,000, 4 connections"}

# The ratios to reach.
TARGETS = ((LINES, SINGLE, 6.0), (ARRAYS[30], SINGLE, 4.0))

_marks = (f"many {number:06}" for number in count())


def fired(port: int, table: Table, operation: Operation, connections: int, seconds: int) -> float:
    """Return the keys a second of an operation."""
    load = fire_at(port, table, operation, next(_marks), connections, seconds)
    return (load.requests - load.refused) / load.seconds


def lines(port: int, number: int) -> float:
    load = asyncio.run(
        stream(port, [body(key) for key in islice(keys.new(0, next(_marks)), number)])
    )
    assert not load.refused, f"{load.refused} of {number} lines were refused"
    return number / load.seconds


def copy(table: Table, number: int) -> float:
    """Copy so many rows into the same table, as its owner."""
    rows = [*islice(keys.new(0, next(_marks)), number)]
    with psycopg.connect(table.url) as connection, connection.cursor() as cursor:
        started = perf_counter()
        with cursor.copy("COPY employees (department_id, name) FROM STDIN") as writing:
            for row in rows:
                writing.write_row(row)
        connection.commit()
    return number / (perf_counter() - started)


def run(started: Server, options: argparse.Namespace) -> dict[str, list[float]]:
    table = started.table(100_000, "lookup")
    with serving(DATABASE_URL=table.url, WORKERS="2") as service:
        ways: dict[str, Callable[[], float]] = {
            SINGLE: lambda: fired(service.port, table, posts(keys.new), 32, options.seconds),
            ARRAYS[30]: lambda: fired(service.port, table, arrays(30), 8, options.seconds),
            ARRAYS[1000]: lambda: fired(service.port, table, arrays(1000), 4, options.seconds),
            LINES: lambda: lines(service.port, options.lines),
            COPY: lambda: copy(table, options.lines),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                table.make_ready()
                rate = way()
                if number:  # the first round is for warming up
                    rates[name].append(rate)
        _, duplicates = table.made_since()
        assert not duplicates
        return rates


def main() -> None:
    """Measure, and print the keys a second and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of a round")
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--default", action="store_true", help="PostgreSQL's own settings")
    options = parser.parse_args()
    unwind_on_signals(SystemExit(1))
    if options.default:
        db.embedded.PRED_LOCKS_PER_RELATION = -2  # half of max_pred_locks_per_transaction
    with server() as started:
        rates = run(started, options)
    medians = {name: median(each) for name, each in rates.items()}
    for name, rate in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:34} {rate:9,.0f} keys a second ({low:,.0f} to {high:,.0f})")
    for name, other, target in TARGETS:
        ratio = medians[name] / medians[other]
        print(f"{name} / {other} {target:g}: {ratio:.3g}, {'met' if ratio >= target else 'short'}")
    ratio = medians[COPY] / medians[LINES]
    print(f"{COPY} / {LINES}, at most 4: {ratio:.3g}, {'met' if ratio <= 4 else 'short'}")


if __name__ == "__main__":
    main()
