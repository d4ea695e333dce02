"""Watches the resources' files for changes."""

import logging
from pathlib import Path

from db.header import HeaderError
from db.resources import read_resources

log = logging.getLogger("onerow")

Stamps = dict[Path, tuple[int, int]]


class Watch:
    """Tells of each change of a folder's files once, when it is complete and can be served."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served = self._seen = stamps(folder)

    def changed(self) -> bool:
        """Look again, and return whether there is a change to serve.

        Where the files cannot be read as resources, the log says so, and the answer is False.
        """
        seen, self._seen = self._seen, stamps(self._folder)
        if self._seen == self._served or self._seen != seen:  # an editor may still be writing
            return False
        self._served = seen
        try:
            read_resources(self._folder)
        except HeaderError as error:
            log.error("the changed files are not served: %s", error)
            return False
        return True


def stamps(folder: Path) -> Stamps:
    """Return the time of the last change (in ns) and the size (in bytes) of each SQL file."""
    found = {}
    for path in folder.rglob("*.sql"):
        try:
            status = path.stat()
        except FileNotFoundError:  # it was removed after rglob() had listed it
            continue
        found[path] = status.st_mtime_ns, status.st_size
    return found
