"""Memory in which each worker counts, and which the others read: files of a folder."""

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The variable that names the folder to the workers.
FOLDER = "WORKERS_FOLDER"

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


def shared_memory(folder: Path, suffix: str, size: int) -> tuple[mmap.mmap, Path | None]:
    """Return `size` bytes, all 0, and the file in which the other workers read them.

    The folder is made anew if it is gone. If it takes no file, as when it is full, there is none,
    and only this process has the memory.
    """
    file = None
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=suffix, delete=False) as opened:
            file = Path(opened.name)
            # Zeros are written, instead of a truncate(), which would make a hole. A write into a
            # hole of a full file system kills the process.
            opened.write(bytes(size))
            opened.flush()
            # The memory keeps the file open, and so locked, until this process ends.
            fcntl.flock(opened, fcntl.LOCK_EX)
            return mmap.mmap(opened.fileno(), size), file
    except OSError:
        if file:
            with suppress(OSError):
                file.unlink()  # what was written of it would take the last room
        return mmap.mmap(-1, size), None


def contents(folder: Path, suffix: str) -> Iterator[tuple[Path, bytes, bool]]:
    """Yield each file with its bytes, and whether its process is alive. Raises OSError."""
    try:
        files = [file for file in folder.iterdir() if file.suffix == suffix]
    except (FileNotFoundError, NotADirectoryError):
        return
    for file in files:
        with suppress(FileNotFoundError):
            with file.open("rb") as opened:
                content, is_alive = opened.read(), _is_locked(opened.fileno())
            yield file, content, is_alive


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
