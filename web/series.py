"""Counts that all workers make together, as Prometheus has them: metrics, each with its series.

prometheus_client counts, too, but it takes 18 microseconds of a POST for that, where this takes 3.
So only the text is made by prometheus_client.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from web.shared import contents, shared_memory

SUFFIX = ".series"

# A file begins with the names of its series, a line each, and goes on with their numbers, 8 bytes
# each. It has room for some 290 histograms of requests, which a service with a few resources does
# not fill. When it is full, the worker makes another one.
NAMES = 2**15
NUMBERS = 2**12
SIZE = NAMES + 8 * NUMBERS

FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}

log = logging.getLogger("onerow")


@dataclass(frozen=True, eq=False)  # by identity, because hashing all fields takes long
class Metric:
    """A metric. A histogram has `bounds`, the largest value of each bucket but the last."""

    kind: str  # one of FAMILIES
    name: str
    text: str
    labels: tuple[str, ...] = ()  # their names
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers a series has. A histogram's are its buckets, and the sum of values."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class Series:
    """The series of one worker, in memory that the others read, and the sums of all workers'.

    Where `labels` are given, they are the values of a metric's labels, in the same order.
    """

    def __init__(self, folder: Path, metrics: list[Metric]) -> None:
        self._folder = folder
        self._metrics = {metric.name: metric for metric in metrics}
        self._memory: list[memoryview] = []  # the contents of this worker's files
        self._files: set[Path] = set()
        self._names_end = self._numbers_end = 0  # of what is used of the last file
        self._begin_file()
        self._numbers = cache(self._begin)

    def add(self, metric: Metric, *labels: object, number: float = 1) -> None:
        """Add to a counter. Adding 0 makes it appear."""
        self._numbers(metric, *labels)[0] += number

    def set(self, metric: Metric, number: float) -> None:
        """Set a gauge."""
        self._numbers(metric)[0] = number

    def observe(self, metric: Metric, *labels: object, value: float) -> None:
        """Add a value to a histogram."""
        numbers = self._numbers(metric, *labels)
        numbers[bisect_left(metric.bounds, value)] += 1
        numbers[-1] += value

    def _begin(self, metric: Metric, *labels: object) -> "memoryview[float]":
        """Return the numbers of a new series, all 0."""
        line = msgspec.json.encode([metric.name, metric.width, *map(str, labels)])
        names_end = self._names_end + len(line)
        if names_end >= NAMES or self._numbers_end + metric.width > NUMBERS:
            self._begin_file()
            names_end = len(line)
        memory, start = self._memory[-1], self._numbers_end
        memory[self._names_end : names_end] = line
        memory[names_end : names_end + 1] = b"\n"  # last, because it tells that the line is whole
        self._names_end = names_end + 1
        self._numbers_end += metric.width
        return memory[NAMES:].cast("d")[start : self._numbers_end]

    def _begin_file(self) -> None:
        memory, file = shared_memory(self._folder, SUFFIX, SIZE)
        if file:
            self._files.add(file)
        else:
            log.warning("each worker has only its own metrics: %s takes no file", self._folder)
        self._memory.append(memoryview(memory))
        self._names_end = self._numbers_end = 0

    def collect(self) -> Iterator[Any]:
        """Yield each metric with the sums of all workers, for prometheus_client to write.

        Workers that have ended count, too, but not in gauges. Raises OSError if a file cannot be
        read, because sums that fall look as if the service had been started anew.
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
                    buckets = [*zip(limits, accumulate(counts), strict=True)]
                    family.add_metric(labels, buckets, total)
                else:
                    family.add_metric(labels, *values)
            yield family

    def _all(self) -> Iterator[tuple[memoryview, bool]]:
        """Yield the contents of all files, and whether their workers are alive."""
        for memory in self._memory:
            yield memory, True
        for file, content, is_alive in contents(self._folder, SUFFIX):
            if file not in self._files and len(content) == SIZE:  # else it is being written
                yield memoryview(content), is_alive

    def _read(self, memory: memoryview) -> Iterator[tuple[Metric, tuple[str, ...], list[float]]]:
        numbers, start = memory[NAMES:].cast("d"), 0
        # What comes behind the last end of a line are zeros, or a line that is being written.
        for line in bytes(memory[:NAMES]).split(b"\n")[:-1]:
            name, width, *labels = msgspec.json.decode(line)
            metric = self._metrics.get(name)
            # A worker that runs another version of the service may have other metrics.
            if metric and metric.width == width:
                yield metric, tuple(labels), [*numbers[start : start + width]]
            start += width
