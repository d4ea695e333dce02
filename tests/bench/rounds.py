"""Runs rounds, in each of which each side of each cell has a turn."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import count, cycle

import msgspec
from tqdm import tqdm

from tests.bench import keys
from tests.bench.databases import Server, Table
from tests.bench.operations import posts
from tests.bench.plan import EXIST, THIS, Cell
from tests.bench.processes import cpu_seconds, megabytes
from tests.bench.sides import SIDES, Running

WARM_UP = 1  # seconds, not measured, for each side of each cell

# During so many requests the memory is looked at ten times, and once before.
MEMORY_REQUESTS = 1_000_000
MEMORY_LOOKS = 10

_marks = (f"{number:06}" for number in count())  # one for each round of the run


class Figures(msgspec.Struct):
    """One side's turn at one cell."""

    cell: str
    side: str
    rate: float  # answers with 2xx a second
    p50: float  # in milliseconds, as the next two
    p99: float
    p999: float
    attempts: float | None  # of a request; None where the side does not tell
    server_cpu: float | None  # milliseconds of a request, as the next
    database_cpu: float
    memory: tuple[float, float] | None  # megabytes, before and after
    ok: int  # answers with 2xx
    refused: int  # other answers
    broken: int  # requests without an answer
    made: int  # rows
    duplicates: int  # rows among those whose key another row has


def turns(stages: list[list[Cell]], rounds: int) -> int:
    """Return how many turns these are, warm-ups included."""
    return sum(len(cell.sides) * (rounds + 1) for stage in stages for cell in stage)


def run(
    server: Server, stage: list[Cell], rounds: int, seconds: int, bar: tqdm
) -> Iterator[Figures]:
    """Start what the stage needs, and measure."""
    with ExitStack() as stack:
        up: dict[tuple[str, int], tuple[Table, Running]] = {}
        for cell in stage:
            for side in cell.sides:
                if (side, cell.rows) not in up:
                    bar.set_description(f"{side} begins, on {cell.rows:,} rows")
                    table, started = start(server, side, cell.rows)
                    up[side, cell.rows] = table, stack.enter_context(started)
        for number in range(rounds + 1):
            for cell in stage:
                first = number % len(cell.sides)  # another side begins each time
                for side in (*cell.sides[first:], *cell.sides[:first]):
                    bar.set_description(f"{cell.name}: {side}")
                    table, running = up[side, cell.rows]
                    figures = turn(
                        server, cell, side, table, running, seconds if number else WARM_UP
                    )
                    bar.update()
                    if number:
                        yield figures


def start(server: Server, side: str, rows: int) -> tuple[Table, AbstractContextManager[Running]]:
    """Make the side's table; return the block in which it runs."""
    chosen = next(each for each in SIDES if each.name == side)
    table = server.table(rows, chosen.index)
    return table, chosen.start(table)


def turn(
    server: Server, cell: Cell, side: str, table: Table, running: Running, seconds: int
) -> Figures:
    """Measure one side's turn."""
    table.make_ready()
    table.begin_round()
    before, database_before = _use(running.pid), cpu_seconds(server.pid)
    load = running.fire(cell.operation, next(_marks), cell.connections, seconds)
    after, database_after = _use(running.pid), cpu_seconds(server.pid)
    made, duplicates = table.made_since()
    requests = max(load.requests, 1)
    ok = load.requests - load.refused
    return Figures(
        cell=cell.name,
        side=side,
        rate=ok / load.seconds,
        p50=load.p50,
        p99=load.p99,
        p999=load.p999,
        attempts=None if load.retried is None else 1 + load.retried / requests,
        server_cpu=(after[0] - before[0]) * 1000 / requests if before and after else None,
        database_cpu=(database_after - database_before) * 1000 / requests,
        memory=(before[1], after[1]) if before and after else None,
        ok=ok,
        refused=load.refused,
        broken=load.broken,
        made=made,
        duplicates=duplicates,
    )


def _use(pid: int | None) -> tuple[float, float] | None:
    return None if pid is None else (cpu_seconds(pid), megabytes(pid))


def memory_over_requests(server: Server, seconds: int, bar: tqdm) -> list[float]:
    """Return the megabytes of this service on the way to MEMORY_REQUESTS, half for new keys."""
    _, started = start(server, THIS, EXIST.rows)
    answered = 0
    with started as running:
        assert running.pid is not None
        looks = [megabytes(running.pid)]
        for regime in cycle((keys.exist, keys.new)):
            bar.set_description(f"memory after {answered:,} requests")
            load = running.fire(posts(regime), next(_marks), EXIST.connections, seconds)
            answered += load.requests
            while answered >= len(looks) * MEMORY_REQUESTS / MEMORY_LOOKS:
                looks.append(megabytes(running.pid))
            if answered >= MEMORY_REQUESTS:
                break
    return looks
