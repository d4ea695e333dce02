"""Counts the outcomes of POSTs for each of the last 300 seconds, all workers together."""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time

KINDS = ("created", "existing", "retried")

# How many seconds are shown, and how many records the ring has: one more for the second that is
# being written, and one because another worker may be a second ahead.
WINDOW = 300
_RING = WINDOW + 2

# The numbers of a record, 8 bytes each: the second, in Unix time, and the count of each kind.
_RECORD = 1 + len(KINDS)

# The variable that names the folder to the workers. prometheus_client reads it as well, and has its
# own files there.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SUFFIX = ".traffic"

# The parent of that folder is in memory, which has room when the disk is full. Systems other than
# Linux lack /dev/shm, and use the usual place of temporary files.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Yield the folder in which each worker has its files.

    The first process to enter makes it, and removes it at the end.
    """
    if FOLDER in os.environ:
        yield Path(os.environ[FOLDER])
        return
    with tempfile.TemporaryDirectory(prefix="onerow-", dir=_MEMORY) as folder:
        os.environ[FOLDER] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[FOLDER]


class Traffic:
    """The counts of all workers. Each process writes only its own file, so that no lock is needed.

    If the folder is full or gone, only the counts of the other workers are missing.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time) -> None:
        self._folder = folder
        self._clock = clock
        self._file: Path | None = None
        size = _RING * _RECORD * 8
        try:
            with tempfile.NamedTemporaryFile(dir=folder, suffix=SUFFIX, delete=False) as file:
                self._file = Path(file.name)
                # Zeros are written, instead of a truncate(), which would make a hole. A write into
                # a hole of a full file system kills the process.
                file.write(bytes(size))
                file.flush()
                shared = mmap.mmap(file.fileno(), size)
        except OSError:
            shared = mmap.mmap(-1, size)
        self._numbers = memoryview(shared).cast("Q")

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
            for file in self._folder.glob(f"*{SUFFIX}"):
                if file != self._file:
                    yield memoryview(file.read_bytes()).cast("Q").tolist()
