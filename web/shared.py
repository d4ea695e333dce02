"""Memory in which each worker counts, and which the others read: files of a folder."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Return `size` bytes of zeros, and their file, whose name begins with the process's id.

    If the folder is full or gone, there is no file, and the others cannot read them.
    """
    try:
        folder.mkdir(exist_ok=True)  # a cleanup of temporary folders may have removed it
        with tempfile.NamedTemporaryFile(
            dir=folder, prefix=f"{os.getpid()}-", suffix=suffix, delete=False
        ) as file:
            # Zeros are written, instead of a truncate(), which would make a hole. A write into a
            # hole of a full file system kills the process.
            file.write(bytes(size))
            file.flush()
            return mmap.mmap(file.fileno(), size), Path(file.name)
    except OSError:
        return mmap.mmap(-1, size), None
