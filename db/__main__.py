"""python -m db COMMAND, on DATABASE_URL or else the embedded server."""

import argparse
import sys

import psycopg

from db.embedded import database_url, unwind_on_signals
from db.queries import apply_schema
from db.settings import read_settings


def init(url: str) -> None:
    """create the tables and indexes of schema.sql where they are missing"""
    apply_schema(url)
    print("The tables and indexes of schema.sql are there.")


COMMANDS = {"init": init}


def main() -> None:
    """Run one command; exit 0 only if all is well."""
    parser = argparse.ArgumentParser(prog="python -m db", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__)
    arguments = parser.parse_args()
    unwind_on_signals()
    with database_url(read_settings()) as url:
        try:
            COMMANDS[arguments.command](url)
        except psycopg.Error as error:
            sys.exit(f"{arguments.command}: {error}")


if __name__ == "__main__":
    main()
