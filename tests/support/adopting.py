"""Runs the command `python -m db adopt` in the tests' own process."""

import argparse
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import psycopg

import db.adopt.command
from db.settings import Settings
from db.texts import printable_lines
from db.way_out.change import Refused


def adopt(database: str, folder: Path, *words: str, engine: str | None = None) -> tuple[int, str]:
    """Run the command in this process; return its exit status, and what it says."""
    parser = argparse.ArgumentParser()
    db.adopt.command.add_arguments(parser)
    settings = Settings(engine=engine)  # type: ignore[arg-type]
    with redirect_stdout(StringIO()) as output:
        try:
            well = db.adopt.command.adopt(database, parser.parse_args(words), settings, folder)
        except (Refused, psycopg.Error) as error:
            return 1, printable_lines(str(error))
    return (0 if well else 1), output.getvalue()
