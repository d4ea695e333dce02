"""A PostgreSQL of the run's own, to be stopped behind the back of who uses it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from db.embedded import embedded_server
from db.schema import apply_schema
from tests.proof.linearizability import Row
from tests.support.service import sql, temporary_data_dir, until

# The server needs room for the sessions of a black hole, which it cannot know to be dead.
CONNECTIONS = 200


class Skipped(Exception):
    """This fault cannot be made here."""


class Server:
    """A server, which runs unless a fault has stopped it."""

    def __init__(self, data_dir: Path, url: str) -> None:
        self.folder = data_dir.parent
        self.url = url
        self._data_dir = data_dir
        self._databases = 0

    def new_database(self) -> str:
        """Make a database with the tables, and return its URL."""
        self._databases += 1
        name = f"faults_{self._databases}"
        sql(self.url, f"CREATE DATABASE {name}")
        database = make_conninfo(self.url, dbname=name)
        apply_schema(database)
        return database

    def takes_connections(self) -> bool:
        """Return whether it runs and is through with its recovery."""
        try:
            sql(self.url, "SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals) -> None:
        """Send the postmaster a signal that ends it, and wait until it has."""
        lines = (self._data_dir / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        process.send_signal(how)
        until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)

    def start(self) -> None:
        """Start it, unless it runs, and wait until it takes connections."""

        def started() -> bool:
            with embedded_server(self._data_dir, CONNECTIONS):
                return self.takes_connections()

        until(started)


@contextmanager
def running(data_dir: Path) -> Iterator[Server]:
    """Run a server in this folder."""
    with embedded_server(data_dir, CONNECTIONS) as url:
        yield Server(data_dir, url)


@contextmanager
def on_a_disk_of(size: str) -> Iterator[Server]:
    """Run a server on a file system of its own. Raises Skipped without the right to make one."""
    with temporary_data_dir() as data_dir:
        folder = str(data_dir.parent)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(mount).returncode != 0:
            raise Skipped("only root may mount a file system")
        try:
            with running(data_dir) as server:
                yield server
        finally:
            subprocess.run(["umount", folder], check=True)


def sessions(database: str, condition: str = "true") -> set[int]:
    """Return the process ids of the service's sessions of which this is true."""
    rows = sql(
        database,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'onerow'"
        f" AND datname = current_database() AND {condition}",
    )
    return {pid for (pid,) in rows}


def tables(database: str) -> list[Row]:
    """Return the rows of both tables."""
    query = (
        "SELECT 'departments', id, name, 0 FROM departments"
        " UNION ALL SELECT 'employees', id, name, department_id FROM employees"
    )
    return [Row(*row) for row in sql(database, query)]
