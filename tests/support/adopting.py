"""Runs the command `python -m db adopt` in the tests' own process."""

import argparse
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import psycopg

import db.adopt.command
from db.adopt.arguments import add_arguments
from db.settings import Settings
from db.texts import printable_lines
from db.way_out.change import Refused
from tests.support import legacy


def adopt(database: str, folder: Path, *words: str, engine: str | None = None) -> tuple[int, str]:
    """Run the command in this process; return its exit status, and what it says."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings = Settings(engine=engine)  # type: ignore[arg-type]
    with redirect_stdout(StringIO()) as output:
        try:
            well = db.adopt.command.adopt(database, parser.parse_args(words), settings, folder)
        except (Refused, psycopg.Error) as error:
            return 1, printable_lines(str(error))
    return (0 if well else 1), output.getvalue()


def commands(database: str, folder: Path, *table: str) -> Callable[..., str]:
    """Return a function that runs commands on the resources in a folder, and what they say.

    `adopt` without a table takes this one, with its options. The command must end with the status
    `ends`. Without words the function returns the database.
    """

    def run(*words: str, ends: int = 0) -> str:
        if not words:
            return database
        command, *options = words
        if command == "adopt":
            named = options and not options[0].startswith("-")
            status, said = adopt(database, folder, *(options if named else [*table, *options]))
        else:
            status, output, errors = legacy.run(database, *words, RESOURCES=str(folder))
            said = output + errors
        assert status == ends, said
        return said

    return run
