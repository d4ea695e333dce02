"""How far a loading is."""

import sys
from collections import Counter
from time import monotonic

from db.load.files import Row
from db.texts import say

# Seconds between two pictures of the bar, and the characters of the bar.
PICTURE = 0.2
WIDTH = 20


class Progress:
    """How far the loading is. A bar shows it if stderr is a terminal."""

    def __init__(self, size: int) -> None:
        """Begin with a file of so many bytes."""
        self.counts = Counter[str]()
        self._size = size
        self._read = 0
        self._begun = monotonic()
        self._shown = 0.0  # by monotonic(); it stays 0 where there is no bar
        self._watched = sys.stderr.isatty()

    def count(self, row: Row, outcome: str) -> None:
        """Count a row as created, existing or refused."""
        self.counts[outcome] += 1
        self._read = row.read
        if self._watched and monotonic() - self._shown >= PICTURE:
            self._shown = monotonic()
            part = min(self._read / max(self._size, 1), 1)  # a pipe has no size
            left = (self._shown - self._begun) * (1 / part - 1)
            bar = f"[{'#' * int(part * WIDTH):<{WIDTH}}] {part:4.0%}"
            clock = f"{int(left) // 60}:{int(left) % 60:02} left"
            print(f"\r{bar} {self._line()}, {clock} ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the bar away, and print the counts."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        say(f"{self._line()}.")

    def _line(self) -> str:
        counts, rows = self.counts, self.counts.total()
        rate = rows / max(monotonic() - self._begun, 0.001)
        return (
            f"{rows:,} rows: {counts['created']:,} created, {counts['existing']:,} existing,"
            f" {counts['refused']:,} refused, {rate:,.0f} a second"
        )
