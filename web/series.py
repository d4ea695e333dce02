"""Counts that all workers make together, as Prometheus has them: metrics, each with its series.

prometheus_client has this, too. It takes ten times as long to count, 15 microseconds of a POST, so
only its text is used.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from web.shared import shared_memory

SUFFIX = ".series"

# A file begins with the names of its series, a line each, and goes on with their numbers, 8 bytes
# each. It has room for some hundred histograms. When it is full, the worker makes another one.
NAMES = 2**15
NUMBERS = 2**12
SIZE = NAMES + 8 * NUMBERS

FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


@dataclass(frozen=True, eq=False)  # two are never equal, which makes finding one fast
class Metric:
    """A metric. A histogram has `bounds`, the largest value of each bucket but the last."""

    kind: str  # one of FAMILIES
    name: str
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers a series has. A histogram's are its buckets, and the sum of values."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class Series:
    """The series of one worker, in memory that the others read, and the sums of all workers'."""

    def __init__(self, folder: Path, metrics: list[Metric]) -> None:
        self._folder = folder
        self._metrics = {metric.name: metric for metric in metrics}
        self._memory: list[memoryview] = []  # the contents of this worker's files
        self._files: set[Path] = set()
        self._names_end = self._numbers_end = 0  # of what is used of the last file
        self._begin_file()
        self.numbers = cache(self._begin)

    @property
    def are_shared(self) -> bool:
        """Whether the other workers can read all of them."""
        return len(self._files) == len(self._memory)

    def add(self, metric: Metric, *labels: object, number: float = 1) -> None:
        """Add to a counter."""
        self.numbers(metric, *labels)[0] += number

    def set(self, metric: Metric, number: float) -> None:
        """Set a gauge."""
        self.numbers(metric)[0] = number

    def observe(self, metric: Metric, *labels: object, value: float) -> None:
        """Add a value to a histogram."""
        numbers = self.numbers(metric, *labels)
        numbers[bisect_left(metric.bounds, value)] += 1
        numbers[-1] += value

    def _begin(self, metric: Metric, *labels: object) -> "memoryview[float]":
        """Return the numbers of a series, all 0."""
        line = msgspec.json.encode([metric.name, *map(str, labels)]) + b"\n"
        if self._names_end + len(line) > NAMES or self._numbers_end + metric.width > NUMBERS:
            self._begin_file()
        memory, start = self._memory[-1], self._numbers_end
        memory[self._names_end : self._names_end + len(line)] = line
        self._names_end += len(line)
        self._numbers_end += metric.width
        return memory[NAMES:].cast("d")[start : self._numbers_end]

    def _begin_file(self) -> None:
        memory, file = shared_memory(self._folder, SUFFIX, SIZE)
        self._memory.append(memoryview(memory))
        if file:
            self._files.add(file)
        self._names_end = self._numbers_end = 0

    def collect(self) -> Iterator[Any]:
        """Yield all metrics with the sums of all workers, as a registry of prometheus_client asks.

        The gauges are those of the workers that are alive.
        """
        sums: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in self._metrics}
        for memory, is_alive in self._all():
            for metric, labels, numbers in self._read(memory):
                if is_alive or metric.kind != "gauge":
                    there = sums[metric.name].setdefault(labels, [0] * metric.width)
                    there[:] = map(sum, zip(there, numbers, strict=True))
        for metric in self._metrics.values():
            family = FAMILIES[metric.kind](metric.name, metric.text, labels=metric.labels)
            for labels, values in sorted(sums[metric.name].items()):
                if metric.kind == "histogram":
                    *counts, total = values
                    limits = [*map(floatToGoString, metric.bounds), "+Inf"]
                    up_to = [sum(counts[: place + 1]) for place in range(len(counts))]
                    family.add_metric(labels, [*zip(limits, up_to, strict=True)], total)
                else:
                    family.add_metric(labels, *values)
            yield family

    def _all(self) -> Iterator[tuple[memoryview, bool]]:
        """Yield the contents of all files, and whether their workers are alive."""
        for memory in self._memory:
            yield memory, True
        with suppress(OSError):
            for file in self._folder.glob(f"*{SUFFIX}"):
                if file not in self._files:
                    contents = memoryview(file.read_bytes())
                    if len(contents) == SIZE:  # else its worker has only begun to write it
                        yield contents, _is_alive(int(file.name.partition("-")[0]))

    def _read(self, memory: memoryview) -> Iterator[tuple[Metric, tuple[str, ...], list[float]]]:
        numbers, start = memory[NAMES:].cast("d"), 0
        # What comes behind the last end of a line are zeros, or a line that is being written.
        for line in bytes(memory[:NAMES]).split(b"\n")[:-1]:
            name, *labels = msgspec.json.decode(line, type=list[str])
            metric = self._metrics[name]
            yield metric, tuple(labels), [*numbers[start : start + metric.width]]
            start += metric.width


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # it ended; another user's process has its id
        return False
    return True
