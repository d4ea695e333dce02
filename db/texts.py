"""Texts of others, made harmless for the terminal or the spreadsheet that will show them."""

import re

# What makes a spreadsheet run a cell, in ASCII and in full width; also in quotes, which some take
# away. A cell begins, too, behind a semicolon, a tab or a line end where the spreadsheet was told
# that it does, or guesses it; and where the text begins with a tab or a line end, some look on.
_RUN = re.compile(
    "^(?=['\"]*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"
    "|(?<=[;\t\r\n])(?=['\"]*[=+\\-@\uff1d\uff0b\uff0d\uff20])"
)


def printable(text: str) -> str:
    """Return the text with all that a terminal or a reader of lines may obey as an escape.

    Beside control characters these are, for one, U+2028, which ends a line, and U+202E, which
    turns the rest of it around.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def printable_lines(text: str) -> str:
    """Return a message of several lines, those after the first indented: none looks like ours."""
    lines = (printable(line.strip()) for line in text.strip().split("\n"))
    return "\n    ".join(lines)


def say(line: str) -> None:
    """Print one line, whatever is in it."""
    print(printable(line), flush=True)


def inert(cell: str) -> str:
    """Return a cell of CSV with a ' before what of it a spreadsheet would run.

    Numbers are not to be asked about; of what else PostgreSQL writes so, -Infinity runs nothing.
    """
    return cell if cell == "-Infinity" else _RUN.sub("'", cell)
