"""python -m db COMMAND, on DATABASE_URL or else the embedded server."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from db.adopt import arguments
from db.doctor import command as doctor
from db.embedded import database_url
from db.engine import ENGINES, POSTGRESQL, discover
from db.psql import psql
from db.resources import RESOURCES, check_resources
from db.roles import roles
from db.schema import apply_schema, init
from db.settings import Settings, read_settings
from db.signals import output_may_end, unwind_on_signals
from db.texts import Arguments, printable_lines, say
from db.transaction import Unavailable
from db.way_out.batches import SECONDS
from db.way_out.change import Refused, connect, with_cause
from db.way_out.duplicates import DIFFERENCES, differences, report, write
from db.way_out.enforce import enforce
from db.way_out.guard import guard
from db.way_out.merge import merge
from db.way_out.plan import plan
from db.way_out.undo import undo


def _init(url: str, given: argparse.Namespace) -> bool:
    init(url, given.resources, read_settings().engine)
    say("What the service needs is there.")
    return True


def _adopt(url: str, given: argparse.Namespace) -> bool:
    from db.adopt.command import adopt  # this imports Jinja, and the other commands start sooner

    return adopt(url, given, read_settings())


def _doctor(url: str, given: argparse.Namespace) -> bool:
    return doctor.examine(url, read_settings(), given.resources)


def _prove(url: str, _: argparse.Namespace) -> bool:
    from db.prove.command import prove

    return prove(url, read_settings())


def _load(url: str, given: argparse.Namespace) -> bool:
    from db.load.command import load

    return load(url, given)


def _duplicates(url: str, given: argparse.Namespace) -> bool:
    with connect(url, "duplicates") as connection:
        return report(connection, given.format, given.resources)


def _guard(url: str, given: argparse.Namespace) -> bool:
    with connect(url, "guard") as connection:
        return guard(connection, given.action, given.resources)


def _merge(url: str, given: argparse.Namespace) -> bool:
    names = given.resources
    if not (given.apply or given.undo):
        with connect(url, "merge") as connection:
            if given.format != "table":
                write(connection, given.format, names, DIFFERENCES, differences)
                return True
            plan(connection, names, given.but)
        say("Nothing was changed: --apply does it.")
        return True
    if given.undo:
        tally = asyncio.run(undo(url, given.limit, given.seconds, names))
    else:
        tally = asyncio.run(merge(url, given.limit, given.seconds, names, given.but))
    # A merge of parents also merges the children that come to share a key, and may move other rows
    # that refer to them into merged, under the name of the reference's folder.
    for name in (*RESOURCES, *sorted({*tally.rows} - {*RESOURCES})):
        if name in names or tally.rows[name]:
            say(f"{name}: {tally.rows[name]:,} rows {'put back' if given.undo else 'merged'}.")
    for name, keys in tally.differ.items():
        say(f"{name}: {keys:,} keys stay as they are, for their copies differ.")
    for note in tally.notes:
        say(note)
    if tally.refused:
        raise Refused("\n".join(tally.refused))
    return not tally.notes


def _enforce(url: str, given: argparse.Namespace) -> bool:
    with connect(url, "enforce") as connection:
        enforce(connection, given.resources)
    return True


def _psql(url: str, _: argparse.Namespace) -> bool:
    return psql(url)


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(prog="python -m db", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    about = "write the folder of a table's resource, by what its catalog says"
    command = commands.add_parser("adopt", help=about)
    arguments.add_arguments(command)
    command.set_defaults(run=_adopt)
    about = "make the table merged and each lookup's index, and the sample's tables"
    _of_resources(commands.add_parser("init", help=about), _init)
    about = "check that this database is fit for the service's guarantees"
    _of_resources(commands.add_parser("doctor", help=about), _doctor)
    about = "try on this server, in tables of its own, that no order of requests makes a second row"
    commands.add_parser("prove", help=about).set_defaults(run=_prove)
    about = "list the keys that several rows share; exit 1 if there are any"
    command = commands.add_parser("duplicates", help=about)
    command.add_argument("--format", choices=["table", "csv", "json"], default="table")
    _of_resources(command, _duplicates)
    about = "refuse a second row for a key from any writer"
    command = commands.add_parser("guard", help=about)
    command.add_argument("action", choices=["on", "off", "status"])
    _of_resources(command, _guard)
    about = "keep one row of each key and move the others to the table merged"
    command = commands.add_parser("merge", help=about)
    how = command.add_mutually_exclusive_group()
    how.add_argument("--apply", action="store_true", help="do it, not only show it")
    how.add_argument("--undo", action="store_true", help="put the merged rows back")
    command.add_argument(
        "--format",
        choices=["table", "csv", "json"],
        default="table",
        help="without --apply: all that differs between rows of a key, in this form",
    )
    command.add_argument(
        "--only-equal", action="store_true", help="leave out the keys whose copies differ"
    )
    command.add_argument(
        "--except",
        dest="but",
        type=lambda text: text.split(","),
        metavar="COLUMN[,COLUMN]",
        help="columns in which they may differ, as created_at",
    )
    command.add_argument("--limit", type=_count, help="keys to merge, or rows to put back")
    command.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        help=f"that a key may take, and other writers may have to wait for it (default {SECONDS})",
    )
    _of_resources(command, _merge)
    about = "make each key unique for all writers, under traffic, and turn its guard off"
    _of_resources(commands.add_parser("enforce", help=about), _enforce)
    about = "get or create a row for each row of a file"
    command = commands.add_parser("load", help=about)
    command.add_argument("resource", choices=list(RESOURCES), metavar="RESOURCE")
    command.add_argument("file", type=Path, metavar="FILE.csv|FILE.ndjson")
    command.add_argument(
        "--refused", type=Path, help="where to write what is refused (FILE.refused.ndjson)"
    )
    command.set_defaults(run=_load)
    about = "write the script that makes the roles, for psql"
    commands.add_parser("roles", help=about).set_defaults(run=None)
    about = "open psql on this database"
    commands.add_parser("psql", help=about).set_defaults(run=_psql)
    return parser


def _of_resources(command: argparse.ArgumentParser, run: Callable[..., bool]) -> None:
    """Let a command take names of resources, all if none is given, and call `run` with them."""
    command.add_argument(
        "resources",
        metavar="RESOURCE",
        nargs="*",
        type=_resource,
        help=f"one of {', '.join(RESOURCES)}; all if none is named",
    )
    command.set_defaults(run=run)


def _resource(name: str) -> str:
    if name not in RESOURCES:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(RESOURCES)}")
    return name


def _refuse_other_engines(url: str, settings: Settings) -> None:
    name = settings.engine or discover(make_conninfo(url, target_session_attrs="any"))
    engine = ENGINES[name]
    if engine is not POSTGRESQL:
        raise Refused(f"the server is {engine.name}, and this needs what only PostgreSQL has")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not SECONDS <= number <= 3600:
        raise ValueError
    return number


def main() -> None:
    """Run one command; exit with 0 only if all is well."""
    parser = _parser()
    given = parser.parse_args()
    if given.command == "merge" and given.limit and not (given.apply or given.undo):
        parser.error("--limit goes with --apply or --undo")
    if given.command == "merge":
        if given.format != "table" and (given.apply or given.undo):
            parser.error("--format goes with neither --apply nor --undo")
        if (given.but and not given.only_equal) or (given.only_equal and given.undo):
            parser.error("--except goes with --only-equal, and that with a merge")
        given.but = (given.but or []) if given.only_equal else None
    if "resources" in given:
        # RESOURCES has parents before their children, the order in which merge must take them.
        given.resources = [each for each in RESOURCES if each in (given.resources or RESOURCES)]
    if given.command == "roles":
        check_resources()
        with output_may_end():
            print(roles(), end="")
        return
    unwind_on_signals(SystemExit(f"{given.command}: ended by a signal, before it was done"))
    # Drop psycopg's warning of each connection that a pool replaces. The command tells the outcome.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    if given.run not in (_adopt, _prove, _psql):
        check_resources()
    settings = read_settings()
    if settings.pooler and given.run is not _prove:
        # The commands take locks that last for a session, and run CREATE INDEX CONCURRENTLY outside
        # of a transaction. In a pooler's transaction mode neither works.
        sys.exit("POOLER=1 is for the service: give this command the server's own DATABASE_URL")
    with database_url(settings) as url, output_may_end():
        try:
            if given.run in (_doctor, _guard, _merge, _enforce):
                _refuse_other_engines(url, settings)
            if given.run in (_load, _psql) and settings.database_url is None:
                apply_schema(url)
            well = given.run(url, given)
        except (Refused, Unavailable, psycopg.Error) as error:
            told = with_cause(error) if error.__cause__ else error
            sys.exit(printable_lines(f"{given.command}: {told}"))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
