"""Adopt: write a table's resource, a folder of SQL files, from templates and the catalog.

What it has written is listed in the folder's adopted.sha256, behind the command that did it. A file
that is not as listed was edited, and stays as it is.
"""

import argparse
import shlex
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import psycopg
from psycopg import RawCursor
from psycopg.rows import dict_row

from db import prepared
from db.adopt_catalog import oid_of, read_references, read_table
from db.adopt_files import render
from db.adopt_table import Table
from db.change import Connection, Refused, ask, patient
from db.engine import ENGINES, named
from db.kind import why_not_ordinary
from db.queries import QUERIES
from db.resources import FOLDER, NAME, REQUESTS, RESERVED, read_resource
from db.session import MEANING, SETTINGS, parameters
from db.settings import Settings
from db.texts import say

# The command that made a folder, and the sums of the files that it wrote, as sha256sum has them.
RECORD = "adopted.sha256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
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
    parser.add_argument("--as", dest="name", metavar="NAME", help="the resource's name in URLs")
    parser.add_argument(
        "--attributes",
        metavar="COLUMN[,COLUMN]",
        help="what a request may set beside the key (default: all that can be set)",
    )
    parser.add_argument("--force", action="store_true", help="write files anew that were edited")


def adopt(
    url: str, given: argparse.Namespace, settings: Settings, resources: Path = FOLDER
) -> bool:
    """Write the folder of a resource and say what is there now; return whether all fits.

    Raises Refused or psycopg.Error.
    """
    with _connect(url) as connection:
        engine = ENGINES[settings.engine or named(connection.pgconn.parameter_status)]
        table = _read(connection, given)
        commands = {table.name: given}
        tables = [table]
        adopted = _adopted(resources)
        _check_others(connection, table, given, resources, adopted)
        for name, command in adopted.items():
            with suppress(Refused, psycopg.Error):  # its table may be gone
                other = _read(connection, command)
                if other.name == name != table.name:
                    tables.append(other)
                    commands[name] = command
        for each in tables:
            read_references(connection, each, tables)

        def write(each: Table) -> None:
            files = render(each, tables, distributed=bool(engine.folder))
            try:
                _write(resources / each.name, files, commands[each.name])
            except OSError as error:
                raise Refused(f"{error.filename}: {error.strerror}") from error

        write(table)
        well = _report(connection, table, resources / table.name)
        # Whose files speak of this table, too: what merge does to a parent or a child.
        for other in tables:
            if other is not table and _related(table, other):
                write(other)
        say(f"Next: {'python -m db init' if well else 'mend that, and adopt it again'}")
    return well


def _connect(url: str) -> Connection:
    """Connect with the search_path of the role, by which it knows its tables."""
    connection = psycopg.connect(
        patient(url, "adopt"), autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
    )
    connection.execute(SETTINGS, parameters(MEANING, None, transaction=False))
    return connection


def _read(connection: Connection, given: argparse.Namespace) -> Table:
    texts = (given.table, given.key, given.where, given.name, given.attributes)
    try:
        "".join(text or "" for text in texts).encode()
    except UnicodeEncodeError:
        raise Refused("what was given is not UTF-8") from None
    table = read_table(connection, given.table, given.key, given.where, given.name)
    if not NAME.fullmatch(table.name) or table.name in RESERVED:
        raise Refused(f"a resource cannot be called {table.name}: give it a name with --as NAME")
    _choose_attributes(table, given.attributes)
    return table


def _check_others(
    connection: Connection,
    table: Table,
    given: argparse.Namespace,
    resources: Path,
    adopted: dict[str, argparse.Namespace],
) -> None:
    """Raise Refused where its folder is another table's, or another folder is of its table."""
    for name, command in adopted.items():
        oid = oid_of(connection, command.table)
        folder = resources / name
        if name == table.name:
            is_other = command.table != given.table if oid is None else oid != table.oid
            if is_other:  # what a merge has moved away from that one would be put back into this
                raise Refused(
                    f"{folder}: this folder is of {command.table}; give another name with --as"
                )
        elif oid == table.oid and any((folder / f"{each}.sql").is_file() for each in REQUESTS):
            raise Refused(
                f"{folder}: {command.table} is served by this folder already, and merge is unsafe"
                f" with two resources of one table: adopt it as {name}, or remove that folder first"
            )


def _choose_attributes(table: Table, names: str | None) -> None:
    """Decide what a request sets beside the key, and note what it cannot. Raises Refused."""
    key = [part.column for part in table.key]
    others = [each for each in table.columns if each not in key]
    has_default = table.id.default or not table.id.settable
    can_be = [
        each
        for each in others
        if each.settable and not each.unserved and not (each is table.id and has_default)
    ]
    if names is None:
        table.attributes = can_be
    else:
        wanted = [name for name in names.split(",") if name]
        if wrong := set(wanted) - {each.name for each in can_be}:
            raise Refused(f"{', '.join(sorted(wrong))}: no columns that a request can set")
        table.attributes = [each for each in can_be if each.name in wanted]
    if not has_default:
        if table.id not in table.attributes:
            table.attributes.insert(0, table.id)
        table.notes.append(
            f"{table.id.name} has no default, so that a request must bring one for a new row"
        )
    for column in others:
        if column.unserved:
            table.notes.append(f"{column.name} is left out: {column.unserved}")
        needed = not (column.optional or column.default) and column not in table.attributes
        if column.settable and needed:
            table.notes.append(
                f"{column.name} is NOT NULL, has no default, and no request sets it: unless a"
                " trigger does, the table refuses each new row"
            )


def _related(one: Table, other: Table) -> bool:
    return any(
        reference.oid == b.oid
        for a, b in ((one, other), (other, one))
        for reference in a.references
    )


# what was written


def _adopted(folder: Path) -> dict[str, argparse.Namespace]:
    """Return the commands that made the folders which are there, by resource."""
    parser = _Recorded()
    add_arguments(parser)
    found = {}
    for path in sorted(folder.glob(f"*/{RECORD}")):
        line = path.read_text(encoding="utf-8").partition("\n")[0]
        with suppress(ValueError):  # it was edited, too
            words = shlex.split(line.removeprefix("# python -m db adopt"))
            found[path.parent.name] = parser.parse_args(words)
    return found


class _Recorded(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def command_line(given: argparse.Namespace) -> str:
    """Return the command, but for --force, in one line."""
    words = [given.table, "--key", given.key]
    for option, value in (
        ("--where", given.where),
        ("--as", given.name),
        ("--attributes", given.attributes),
    ):
        if value is not None:
            words += [option, value]
    # A line break would end the comment that this is, and is a blank to SQL.
    return "python -m db adopt " + shlex.join(word.replace("\n", " ") for word in words)


def _sums(folder: Path) -> dict[str, str]:
    """Return the sum of each file as it was written."""
    record = folder / RECORD
    lines = record.read_text(encoding="utf-8").splitlines()[1:] if record.exists() else []
    return {path: sum_ for sum_, _, path in (line.partition("  ") for line in lines)}


def _write(folder: Path, files: dict[str, str], given: argparse.Namespace) -> None:
    """Write the files but for those that were edited."""
    before, sums = _sums(folder), {}
    written = 0
    edited = []
    for path in sorted({*files, *before}):
        file = folder / path
        there = file.read_bytes() if file.exists() else None
        new = files[path].encode() if path in files else None
        ours = there is None or _sum(there) == before.get(path) or there == new
        if not ours and not given.force:
            edited.append(path)
            continue
        if new is None:
            file.unlink(missing_ok=True)
            continue
        sums[path] = _sum(new)
        if there != new:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(new)
            written += 1
    lines = [f"# {command_line(given)}", *(f"{sum_}  {path}" for path, sum_ in sums.items())]
    (folder / RECORD).write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(f"{folder}: {written} files written, {len(sums) - written} as they were.")
    if edited:
        say(f"Left as they are, for they were edited (--force writes them): {', '.join(edited)}")


def _sum(content: bytes) -> str:
    return sha256(content).hexdigest()


# what is there now


def _report(connection: Connection, table: Table, folder: Path) -> bool:
    """Say what there is to know, and return whether PostgreSQL takes all files."""
    for note in table.notes:
        say(f"{table.name}: {note}.")
    with connection.transaction(force_rollback=True):
        connection.execute(b"SET LOCAL search_path = pg_catalog, pg_temp")
        (kind,) = ask(connection, "adoption/kind", table.full)
    if reason := why_not_ordinary(table.name, kind):
        say(f"{reason}: the service works, but merge, guard and enforce refuse it.")
    faults = list(_faults(connection, folder))
    for fault in faults:
        say(fault)
    duplicates = folder / "duplicates.sql"
    if duplicates.exists() and not faults:
        rows = connection.execute(duplicates.read_bytes()).fetchall()
        if rows:
            say(f"{rows[0]['total']:,} keys have {rows[0]['surplus']:,} rows too many.")
        else:
            say("Every key has one row.")
    return not faults


def _faults(connection: Connection, folder: Path) -> Iterator[str]:
    """Yield what PostgreSQL refuses of the files, and what their headers say otherwise."""
    with connection.transaction(force_rollback=True):
        if not ask(connection, "adopt/table", "merged"):
            # What `python -m db init` makes, so that all files can be looked at before.
            connection.execute(QUERIES["adoption/merged"])
        resource = read_resource(folder)
        for check in (
            *prepared.checks(connection, resource),
            *prepared.way_out(connection, resource),
        ):
            yield check.detail
