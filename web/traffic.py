"""Counts the outcomes of POSTs for each of the last 300 seconds, all workers together."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import time

from web.shared import contents, shared_memory

KINDS = ("created", "existing", "retried")

# How many seconds are shown, and how many records the ring has: one more for the second that is
# being written, and one because another worker may be a second ahead.
WINDOW = 300
_RING = WINDOW + 2

# The numbers of a record, 8 bytes each: the second, in Unix time, and the count of each kind.
_RECORD = 1 + len(KINDS)

SUFFIX = ".traffic"


class Traffic:
    """The counts of all workers. Each process writes only its own file, so that no lock is needed.

    If the folder is full or gone, only the counts of the other workers are missing.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time) -> None:
        self._folder = folder
        self._clock = clock
        memory, self._file = shared_memory(folder, SUFFIX, _RING * _RECORD * 8)
        self._numbers = memoryview(memory).cast("Q")

    def count(self, kind: str, number: int = 1) -> None:
        """Add to this second's count of one of KINDS."""
        second = int(self._clock())
        start = second % _RING * _RECORD
        if self._numbers[start] != second:
            for position in range(1, _RECORD):
                self._numbers[start + position] = 0
            self._numbers[start] = second  # last, so that no reader takes the old counts for it
        self._numbers[start + 1 + KINDS.index(kind)] += number

    def seconds(self) -> list[tuple[int, ...]]:
        """Return the last WINDOW whole seconds, each as its Unix time and the counts of KINDS."""
        end = int(self._clock())
        sums = {second: [0] * len(KINDS) for second in range(end - WINDOW, end)}
        for numbers in (self._numbers.tolist(), *self._others()):
            for start in range(0, len(numbers), _RECORD):
                if counts := sums.get(numbers[start]):
                    for position in range(len(KINDS)):
                        counts[position] += numbers[start + 1 + position]
        return [(second, *counts) for second, counts in sums.items()]

    def _others(self) -> Iterator[list[int]]:
        with suppress(OSError):
            for file, content, _ in contents(self._folder, SUFFIX):
                if file != self._file:
                    yield memoryview(content).cast("Q").tolist()
