"""The log: a record is one line on stderr, and repeats nothing that was sent or stored."""

import logging
import traceback
from types import TracebackType

from db.texts import printable

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def log_to_stderr() -> None:
    """Set the root logger up."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("onerow").setLevel(logging.INFO)


class Formatter(logging.Formatter):
    """Makes each record one line; what led to an exception follows, in lines that are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line, whatever the message's parts hold."""
        return printable(super().formatMessage(record).rstrip())

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802
        """Return where an exception and its causes came from, of each its type and not its text.

        The text may quote a body or a row: PostgreSQL's does, and so does a KeyError.
        """
        chain: list[BaseException] = []
        error = ei[1]
        while error is not None and error not in chain:
            chain.append(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        lines = []
        for error in reversed(chain):
            lines.append("Traceback (most recent call last):")
            lines += "".join(traceback.format_tb(error.__traceback__)).splitlines()
            sqlstate = getattr(error, "sqlstate", None)
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            lines.append(f"{name}, SQLSTATE {sqlstate}" if sqlstate else name)
        return "\n".join(f"    {printable(line)}" for line in lines)
