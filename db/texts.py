"""Makes texts from clients and the database harmless for a terminal or a spreadsheet."""

import argparse
import re
from typing import NoReturn

# The places where a cell of CSV begins with a sign that makes a spreadsheet run it, in ASCII or in
# full width. Spreadsheets take quotes before the sign away, and some skip a tab or a line end. Some
# also begin a new cell behind a semicolon, a tab or a line end inside the text.
_RUN = re.compile(
    "^(?=['\"]*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"
    "|(?<=[;\t\r\n])(?=['\"]*[=+\\-@\uff1d\uff0b\uff0d\uff20])"
)


def printable(text: str) -> str:
    """Return the text with escapes for all characters that a terminal or a log's reader may obey.

    These are control characters and others that are not printable, such as U+2028, which ends a
    line, and U+202E, which reverses the rest of it.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def printable_lines(text: str) -> str:
    """Return a message with escapes, its lines after the first indented.

    So no line of another program's message can be taken for a line of this one's.
    """
    lines = (printable(line.strip()) for line in text.strip().split("\n"))
    return "\n    ".join(lines)


def say(line: str) -> None:
    """Print one line, with escapes as of printable()."""
    print(printable(line), flush=True)


class Arguments(argparse.ArgumentParser):
    """A parser of a command line whose messages have escapes, because they repeat words of it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with 2."""
        super().error(printable(message))


def inert(cell: str) -> str:
    """Return a text for a cell of CSV, with a ' before each part that a spreadsheet would run.

    -Infinity begins with a minus, but no spreadsheet runs it, so it stays as PostgreSQL writes it.
    """
    return cell if cell == "-Infinity" else _RUN.sub("'", cell)
