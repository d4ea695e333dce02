"""What POSTs came to, second by second over the last minutes, all workers together."""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time

KINDS = ("created", "existing", "retried")

# Seconds that are shown, and those of the ring: one more is being written, one may be next.
WINDOW = 300
_RING = WINDOW + 2

# A second's record: which second it is of, and how many of each kind; 8 bytes a number.
_RECORD = 1 + len(KINDS)

# The variable that tells the workers where: prometheus_client's, for it has its files there, too.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SUFFIX = ".traffic"

# Memory, which is not full when the disk is; elsewhere than on Linux, where temporary files go.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def shared_folder() -> Iterator[Path]:
    """The folder where each worker counts in files of its own; made by the first to enter."""
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
    """The counts. Each process writes only its own file, so that no lock is needed.

    A folder that is full or gone costs the others' counts and nothing else.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time) -> None:
        self._folder = folder
        self._clock = clock
        self._file: Path | None = None
        size = _RING * _RECORD * 8
        try:
            with tempfile.NamedTemporaryFile(dir=folder, suffix=SUFFIX, delete=False) as file:
                self._file = Path(file.name)
                # Not truncate(), whose holes have no room on the disk yet: to write into one where
                # the disk is full ends the process.
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
            self._numbers[start] = second  # last: until then readers take the record for old
        self._numbers[start + 1 + KINDS.index(kind)] += number

    def seconds(self) -> list[tuple[int, ...]]:
        """Return the last WINDOW whole seconds, (Unix time, then the count of each of KINDS)."""
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
