"""The command line of adopt, as its user types it and as a folder's record keeps it."""

import argparse
import shlex
from typing import NoReturn

from db.queries import flat

COMMAND = "python -m db adopt "

# The options that name columns, each column in one of them at most.
WAYS = ("fill", "newest", "largest", "agree")

# The columns that tell which row is the newest, unless --by names another one.
NEWEST = ("updated_at", "created_at")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument("table", metavar="TABLE", help="its name, as SQL has it")
    parser.add_argument(
        "--key",
        required=True,
        metavar="EXPR[,EXPR]",
        help="what identifies a row: columns, or expressions of one each, as lower(email)",
    )
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        help="rows outside it are no copies, as with 'deleted_at IS NULL'",
    )
    parser.add_argument(
        "--keep",
        metavar="ORDER",
        help="which row of a key stays: the first in this order, as 'synced DESC, referring DESC',"
        " where referring is how many rows refer to it (default: the lowest id)",
    )
    _add_takes(parser)
    parser.add_argument(
        "--refers",
        metavar="TABLE.COLUMN[=COLUMN]",
        action="append",
        help="a column that refers to this table's id, or to another column, without a foreign key;"
        " may be repeated",
    )
    parser.add_argument(
        "--absorb",
        metavar="TABLE.COLUMN",
        action="append",
        help="a reference whose rows go into the table merged, too, where a unique index of theirs"
        " keeps them from referring to the row that stays; may be repeated",
    )
    parser.add_argument("--as", dest="name", metavar="NAME", help="the resource's name in URLs")
    parser.add_argument(
        "--attributes",
        metavar="COLUMN[,COLUMN]",
        help="what a request may set beside the key (default: all that can be set)",
    )
    parser.add_argument("--force", action="store_true", help="write files anew that were edited")


def _add_takes(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the row that stays takes over."""
    columns = "COLUMN[,COLUMN]"
    for way, about in {
        "fill": "columns that the row that stays takes over from the others where it has NULL",
        "newest": "columns that it takes over from the newest row that has a value",
        "largest": "columns of which it gets the largest value",
        "agree": "columns in which the rows of a key must agree, or merge leaves the key alone",
    }.items():
        parser.add_argument(f"--{way}", metavar=columns, help=about)
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help=f"the column that is the largest in the newest row (default: {' or '.join(NEWEST)})",
    )
    parser.add_argument(
        "--together",
        metavar=columns,
        action="append",
        help="columns that come from one row, as the lines of an address; may be repeated",
    )


def command_line(given: argparse.Namespace) -> str:
    """Return the command, without --force, in one line."""
    # The command stands in a comment, which a line break would end.
    words = [given.table.replace("\n", " "), "--key", flat(given.key)]
    for option, value in (
        ("--where", given.where and flat(given.where)),
        ("--keep", given.keep and flat(given.keep)),
        *((f"--{way}", getattr(given, way)) for way in WAYS),
        ("--by", given.by),
        *(
            (f"--{name}", text)
            for name in ("together", "refers", "absorb")
            for text in getattr(given, name) or []
        ),
        ("--as", given.name),
        ("--attributes", given.attributes),
    ):
        if value is not None:
            words += [option, value]
    return COMMAND + shlex.join(words)


def given_by(line: str) -> argparse.Namespace:
    """Return what command_line() has written. Raises ValueError if it is no such command."""
    parser = _Recorded()
    add_arguments(parser)
    return parser.parse_args(shlex.split(line.removeprefix(COMMAND)))


class _Recorded(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)
