"""The table, and the ratios that are to be reached."""

import os
from collections.abc import Iterator
from statistics import median

import msgspec

from tests.bench import plan
from tests.bench.rounds import Figures

# This stands where a side has nothing to report.
NONE = "-"

HEAD = (
    "", "requests/s", "(min to max)", "p50", "p99", "p99.9 ms", "attempts", "CPU: server",
    "PostgreSQL ms", "MB", "refused", "broken", "duplicates",
)  # fmt: skip


class Summary(msgspec.Struct):
    """One side's rounds in one cell, as medians, the spread of the rate, and sums of counts."""

    cell: str
    side: str
    rate: float
    rate_min: float
    rate_max: float
    p50: float
    p99: float
    p999: float
    attempts: float | None
    server_cpu: float | None
    database_cpu: float
    memory: tuple[float, float] | None  # megabytes, before the first round and after the last
    ok: int
    refused: int
    broken: int
    made: int
    duplicates: int


class Ratio(msgspec.Struct):
    """A ratio that is to be reached, and the one that was."""

    text: str
    value: float
    target: float
    met: bool
    why: str = ""  # what would have been needed


def summaries(figures: list[Figures]) -> list[Summary]:
    """Sum up the rounds, in the order of the cells and of the plan's sides."""
    grouped: dict[tuple[str, str], list[Figures]] = {}
    order = (*plan.SERVICES, *plan.FLOORS)
    for each in sorted(figures, key=lambda each: order.index(each.side)):
        grouped.setdefault((each.cell, each.side), []).append(each)
    return [_summary(cell, side, rounds) for (cell, side), rounds in grouped.items()]


def _summary(cell: str, side: str, rounds: list[Figures]) -> Summary:
    def middle(name: str) -> float:
        return float(median(getattr(each, name) for each in rounds))

    first, last = rounds[0], rounds[-1]
    return Summary(
        cell,
        side,
        rate=middle("rate"),
        rate_min=min(each.rate for each in rounds),
        rate_max=max(each.rate for each in rounds),
        p50=middle("p50"),
        p99=middle("p99"),
        p999=middle("p999"),
        attempts=None if first.attempts is None else middle("attempts"),
        server_cpu=None if first.server_cpu is None else middle("server_cpu"),
        database_cpu=middle("database_cpu"),
        memory=(first.memory[0], last.memory[1]) if first.memory and last.memory else None,
        ok=sum(each.ok for each in rounds),
        refused=sum(each.refused for each in rounds),
        broken=sum(each.broken for each in rounds),
        made=sum(each.made for each in rounds),
        duplicates=sum(each.duplicates for each in rounds),
    )


def table(results: list[Summary]) -> Iterator[str]:
    """Return lines for a terminal, with a block for each cell."""
    for cell in dict.fromkeys(each.cell for each in results):
        yield ""
        yield _line((cell, "keys/s" if cell in plan.OF_KEYS else HEAD[1], *HEAD[2:]))
        for each in results:
            if each.cell == cell:
                yield _line(_words(each))


def _words(each: Summary) -> tuple[str, ...]:
    cpu = NONE if each.server_cpu is None else f"{each.server_cpu:.3f}"
    return (
        f"  {each.side}",
        f"{each.rate:,.0f}",
        f"({each.rate_min:,.0f} to {each.rate_max:,.0f})",
        f"{each.p50:.1f}",
        f"{each.p99:.1f}",
        f"{each.p999:.1f}",
        NONE if each.attempts is None else f"{each.attempts:.4f}",
        cpu,
        f"{each.database_cpu:.3f}",
        "{:.0f} to {:.0f}".format(*each.memory) if each.memory else NONE,
        f"{each.refused:,}",
        f"{each.broken:,}",
        NONE if each.side == plan.NO_DATABASE else f"{each.duplicates:,}",
    )


WIDTHS = (34, 10, 17, 6, 6, 8, 8, 11, 13, 10, 7, 6, 10)


def _line(words: tuple[str, ...]) -> str:
    padded = (word.rjust(width) for word, width in zip(words[1:], WIDTHS[1:], strict=True))
    return " ".join((words[0].ljust(WIDTHS[0]), *padded))


Known = dict[tuple[str, str], Summary]


def ratios(results: list[Summary], memory: list[float]) -> Iterator[Ratio]:
    """Yield the ratios that are to be reached, as measured."""
    known = {(each.cell, each.side): each for each in results}
    faster = [
        (0.9, 0.9, plan.ASYNCPG), (10, 7, plan.FLASK), (3.2, 3.2, plan.FASTAPI),
        (5, 5, plan.DJANGO), (1.2, 1.2, plan.THIS_PLAIN),
    ]  # fmt: skip
    for exist, new, side in faster:
        yield from _ratio(known, exist, plan.EXIST, plan.EXIST, side)
        yield from _ratio(known, new, plan.NEW, plan.NEW, side)
    yield from _ratio(known, 0.3, plan.EXIST, plan.EXIST, plan.NO_DATABASE)
    for cell in plan.OTHERS:
        yield from _ratio(known, 0.9, cell, cell, plan.ASYNCPG)
    steady = [(plan.INCREASING, plan.NEW), (plan.EMPTY, plan.NEW)]
    steady += [
        (plan.sized(plan.LARGE, cell), plan.sized(plan.MEDIUM, cell))
        for cell in (plan.EXIST, plan.NEW)
    ]
    for cell, base in steady:
        yield from _ratio(known, 0.8, cell, base, plan.THIS)
    yield from _limits(known, memory)


def _ratio(
    known: Known, target: float, cell: plan.Cell, base: plan.Cell, base_side: str
) -> Iterator[Ratio]:
    """Return the ratio of this service's rate to another's, which is to be at least `target`."""
    one, other = known.get((cell.name, plan.THIS)), known.get((base.name, base_side))
    if one and other:
        value = one.rate / max(other.rate, 0.001)
        where = cell.name if base is cell else f"{cell.name} / {base.name}"
        text = f"{where}: {plan.THIS} / {base_side}, at least"
        met = value >= target
        yield Ratio(text, value, target, met, "" if met else _budget(one, target * other.rate))


def _budget(ours: Summary, rate: float) -> str:
    """Say how much time a rate leaves for a request, and how much a request takes."""
    cores = os.cpu_count() or 1
    return (
        f"{rate:,.0f} a second leave {cores * 1000 / rate:.3f} ms of {cores} cores for a request,"
        f" of which the server now takes {ours.server_cpu or 0:.3f},"
        f" PostgreSQL {ours.database_cpu:.3f}, and the client some"
    )


def _limits(known: Known, memory: list[float]) -> Iterator[Ratio]:
    """Yield the ratios that must stay below a limit."""
    this = plan.THIS
    for target, cell in ((0.01, plan.NEW), (0.01, plan.INCREASING), (0.05, plan.EMPTY)):
        if (found := known.get((cell.name, this))) and found.attempts:
            retried = found.attempts - 1
            met = retried < target
            why = (
                "" if met else "the fewer rows, the fewer pages of the lookup's index to differ by"
            )
            yield Ratio(f"{cell.name}: retried, below", retried, target, met, why)
    ours, theirs = (known.get((plan.EXIST_8.name, side)) for side in plan.PAIR)
    if ours and theirs:
        ratio = ours.p99 / theirs.p99
        text = f"{plan.EXIST_8.name}: p99 / p99 of {plan.ASYNCPG}, at most"
        yield Ratio(text, ratio, 1.2, ratio <= 1.2)
    if found := known.get((plan.HOT_512.name, this)):
        lost = found.refused + found.broken
        yield Ratio(f"{found.cell}: not answered with 2xx, exactly", lost, 0, lost == 0)
        tail = found.p99 / found.p50
        yield Ratio(f"{found.cell}: p99 / p50, below", tail, 10, tail < 10)
    if memory:
        growth = memory[-1] / memory[1]
        # The comparison leaves out the first tenth, which fills caches and pools.
        yield Ratio(
            "memory after 10^6 requests / after 10^5, at most", growth, 1.05, growth <= 1.05
        )
    duplicates = sum(
        each.duplicates
        for (_, side), each in known.items()
        if side in (this, plan.THIS_SINGLE, plan.THIS_PLAIN)
    )
    yield Ratio("duplicates in all cells of onerow, exactly", duplicates, 0, duplicates == 0)
