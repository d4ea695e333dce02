"""The time and the memory of a process and its children."""

from contextlib import suppress

import psutil


def cpu_seconds(pid: int) -> float:
    """Return the seconds that the tree has used so far, with those of children that have ended."""
    root = psutil.Process(pid)
    ended = root.cpu_times()
    seconds: float = ended.children_user + ended.children_system
    for process in _tree(root):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def megabytes(pid: int) -> float:
    """Return the memory that would be free if the tree ended: the sum of its processes' USS."""
    total = 0
    for process in _tree(psutil.Process(pid)):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total / 2**20


def _tree(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]
