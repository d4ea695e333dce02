"""The resources' files, watched for changes."""

import logging
from pathlib import Path

from db.header import HeaderError
from db.resources import read_resources

log = logging.getLogger("onerow")

Stamps = dict[Path, tuple[int, int]]


class Watch:
    """Tells once of each change that the files have come through, and that can be served."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served = self._seen = stamps(folder)

    def changed(self) -> bool:
        """Look again. A change that no resource can be read from is told to the log."""
        seen, self._seen = self._seen, stamps(self._folder)
        if self._seen == self._served or self._seen != seen:  # an editor may still be writing
            return False
        self._served = seen
        try:
            read_resources(self._folder)
        except HeaderError as error:
            log.error("what is served stays as it was: %s", error)
            return False
        return True


def stamps(folder: Path) -> Stamps:
    """Return when each file was last written, and how long it is."""
    found = {}
    for path in folder.rglob("*.sql"):
        try:
            status = path.stat()
        except FileNotFoundError:  # gone meanwhile
            continue
        found[path] = status.st_mtime_ns, status.st_size
    return found
