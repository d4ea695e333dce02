"""The log: a record is one line on stderr, and repeats nothing that was sent or stored."""

import json
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from db.texts import printable

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """Set the root logger up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else Formatter(FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("onerow").setLevel(logging.INFO)


class Formatter(logging.Formatter):
    """Makes each record one line. The trace of an exception follows in indented lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line, with escapes for what is not printable."""
        return printable(super().formatMessage(record).rstrip())

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802
        """Return the lines of trace_of()."""
        return "\n".join(f"    {line}" for line in trace_of(ei[1]))


class JsonFormatter(logging.Formatter):
    """Makes each record one JSON object on one line, with the trace of an exception as `traceback`.

    A record's `fields`, a dict of text and numbers, are members of the object, too.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, all of it in ASCII, whatever stderr's encoding is."""
        members = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip(),
            **getattr(record, "fields", {}),
        }
        # Escape as in text, because a reader of the JSON may show its values on a terminal.
        told = {
            name: printable(value) if isinstance(value, str) else value
            for name, value in members.items()
        }
        if record.exc_info:
            told["traceback"] = "\n".join(trace_of(record.exc_info[1]))
        return json.dumps(told)


def trace_of(error: BaseException | None) -> Iterator[str]:
    """Yield the trace of an exception and of its causes, with the type of each and not its text.

    The text may quote a body or a row, as that of PostgreSQL's errors and of a KeyError does.
    """
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for error in reversed(chain):
        yield "Traceback (most recent call last):"
        yield from map(printable, "".join(traceback.format_tb(error.__traceback__)).splitlines())
        sqlstate = getattr(error, "sqlstate", None)
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        yield printable(f"{name}, SQLSTATE {sqlstate}" if sqlstate else name)
