"""One server for all tests, and databases with the tables."""

import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from shutil import disk_usage

import psycopg
import pytest
from hypothesis import core
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.embedded import embedded_server
from db.engine import discover
from db.pool import Pool, open_pool
from db.schema import apply_schema
from db.settings import Settings
from db.signals import unwind_on_signals
from tests.faults.server import Server
from tests.proof import profiles as profiles  # registers Hypothesis' settings, and loads some
from tests.support.pools import SECONDS, filled, nothing_left_behind
from tests.support.roles import SERVICE, as_role, make_roles
from tests.support.service import Service, serving, sql, temporary_data_dir, until

OURS = "^onerow_test_"

# Bytes for the servers of a run, which have up to 1,400 databases of 8 MB together.
ROOM = 12 * 2**30

# The files that take longest. They come first, so that no process has one of them left at the end.
LONGEST = (
    *("test_workloads.py", "test_guard.py", "test_interleavings.py", "test_data_directory.py"),
    *("test_embedded.py", "test_stateful.py", "test_own_way.py", "test_variants.py"),
    *("test_merge.py", "test_inspection.py"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Let signals unwind, so that the server stops with the tests; draw Hypothesis' seed.

    With the seed the same is drawn again, but calls need not overlap again. The other processes of
    the run take it over.
    """
    unwind_on_signals(KeyboardInterrupt())  # pytest takes SystemExit for the end of one test
    if core.global_force_seed is None:
        core.global_force_seed = random.getrandbits(32)  # type: ignore[assignment]
        config.option.hypothesis_seed = str(core.global_force_seed)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the LONGEST come first."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def pytest_report_header() -> str:
    """Return the line that tells how to draw the same again."""
    return f"draw the same again: pytest --hypothesis-seed={core.global_force_seed}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many workloads each negative control took, and the one that failed."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.section(name)
            terminalreporter.write_line(str(value))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server that is new at the start and gone at the end.

    With TEST_DATABASE_URL it is that server, as a superuser, and the tests' databases and roles
    are dropped from it at the end.
    """
    with ExitStack() as stack:
        url = os.environ.get("TEST_DATABASE_URL")
        if url:
            stack.callback(clean_up, url)
            clean_up(url)  # a run that was killed has left its own
        else:
            data_dir = stack.enter_context(temporary_data_dir(in_memory()))
            url = stack.enter_context(embedded_server(data_dir))
            # With some hundred databases, autovacuum would start ten processes a second.
            sql(url, "ALTER SYSTEM SET autovacuum_naptime = '1d'")
            # What the kernel has outlives every process, and no test ends the kernel. To wait for
            # a disk would make the tests slower.
            set_fsync(url, "off")
            # Nobody needs the data any more, which an end in order would write to the disk.
            stack.callback(Server(data_dir, url).stop, signal.SIGQUIT)
        yield url


def in_memory() -> Path | None:
    """Return a folder in memory, if there is one with enough room for the tests' databases.

    To make a database, of which each test has its own, takes a third of the time there.
    """
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and disk_usage(folder).free > ROOM else None


def set_fsync(url: str, value: str) -> None:
    """Set fsync, and wait until new sessions have it."""
    sql(url, f"ALTER SYSTEM SET fsync = {value}")
    sql(url, "SELECT pg_reload_conf()")
    until(lambda: sql(url, "SHOW fsync") == [(value,)])


@pytest.fixture(scope="module")
def durable(server: str) -> Iterator[None]:
    """Turn fsync on, which doctor asks for, while a module's tests run."""
    if os.environ.get("TEST_DATABASE_URL"):
        yield  # that server's settings are its own
    else:
        set_fsync(server, "on")
        yield
        set_fsync(server, "off")


def clean_up(url: str) -> None:
    """Drop the databases that the tests have made, and then the roles that owned things in them."""
    force = "CASCADE" if discover(url) == "cockroachdb" else "WITH (FORCE)"
    with psycopg.connect(url, autocommit=True) as connection:
        made = connection.execute("SELECT datname FROM pg_database WHERE datname ~ %s", [OURS])
        for (name,) in made.fetchall():
            connection.execute(f"DROP DATABASE {name} {force}")
        made = connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ %s", [OURS])
        for (name,) in made.fetchall():
            connection.execute(f"DROP ROLE {name}")


@pytest.fixture(scope="session")
def new_database(server: str) -> Callable[[], str]:
    """Return a function that makes a database with the tables and returns its URL."""
    numbers = count(1)
    engine = discover(server)

    def create(template: str = "") -> str:
        name = f"onerow_test_{next(numbers)}"
        sql(server, f"CREATE DATABASE {name}{template}")
        database = make_conninfo(server, dbname=name)
        if not template:
            apply_schema(database, engine)
        return database

    if engine != "postgresql":
        return create
    with_tables = conninfo_to_dict(create())["dbname"]  # a copy takes half as long as to make them
    return lambda: create(f" TEMPLATE {with_tables}")


@pytest.fixture
def database(new_database: Callable[[], str]) -> str:
    """The URL of a database with the tables, which no other test uses."""
    return new_database()


@pytest.fixture(scope="session")
def shared_service(new_database: Callable[[], str]) -> Iterator[Service]:
    """One service, as the role onerow_service, for all tests that keep to rows of their own."""
    database = new_database()
    make_roles(database)
    with serving(DATABASE_URL=as_role(database, SERVICE)) as service:
        yield service


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """A pool on the test's own database, which must get all its connections back in the end."""
    settings = Settings(database_url=database, pool_size=4, retry_deadline=SECONDS)
    async with open_pool(settings) as pool:
        await filled(pool)
        yield pool
        await nothing_left_behind(pool)
