"""Runs the real service, `python app.py`, in a process of its own, on a free port."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import psutil
import psycopg

ROOT = Path(__file__).parent.parent.parent

# A wait of so many seconds is a failure. What is waited for takes milliseconds, or with initdb one
# or two seconds, on a machine that is not busy.
LIMIT = 60.0

# The service's variables, which a developer's shell may have set.
OURS = re.compile(
    "DATABASE_URL|DATA_DIR|HOST|PORT|WORKERS|POOL_.*|RETRY_.*|PIPELINE|POOLER|ENGINE|MAX_BODY|DRAIN_.*"
    "|RESOURCES|RELOAD|ALLOW_.*|ALLOWED_.*|API_.*|LOG_.*|PROMETHEUS_.*|PG.*"
)

# A pool logs these where it gets a connection back that is still in a transaction, or broken. Where
# the test has not done that, the service has, and the pool would hide it.
LEFT_OPEN = re.compile("(rolling back|closing) returned connection")
BROKEN = re.compile("discarding (closed|broken) connection")

# The service closes a connection whose user's deadline has passed, as on a busy machine, and logs
# one of these.
GIVEN_UP = re.compile("given up: |not ready: ")


def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds. Raises AssertionError if it does not within LIMIT."""
    deadline = monotonic() + LIMIT
    while not condition():
        assert monotonic() < deadline, f"still not so after {LIMIT} s"
        sleep(0.01)


@contextmanager
def temporary_data_dir(parent: Path | None = None) -> Iterator[Path]:
    """Yield a path for a data directory of the embedded server; delete its folder at the end.

    pytest's tmp_path would not do: it is closed to others, and root's server runs as someone else.
    """
    folder = Path(tempfile.mkdtemp(prefix="onerow-tests-", dir=parent))
    try:
        yield folder / "data"
    finally:
        shutil.rmtree(folder)


def environment(**settings: str) -> dict[str, str]:
    """Return the environment with these settings and no others of the service's."""
    kept = {name: value for name, value in os.environ.items() if not OURS.fullmatch(name)}
    # Where it is set, each of some thousand starts would compile the whole service.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PYTHONWARNINGS": "error", **settings}


def run(*command: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with these settings and no others of the service's."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@dataclass
class Service:
    """A running service, and what a test asks of it."""

    process: subprocess.Popen[str]
    line: str  # the line that it printed when it began to serve
    log: Path  # the file that has its error output
    database: str
    connections_break: bool = False  # True where the test breaks connections to the database
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        found = re.search(r"(http://[\d.]+:(\d+))", self.line)
        assert found, f"{self.line}{self.log.read_text()}"
        self.url = found[1]
        self.port = int(found[2])
        self.http = self.client()

    def client(self) -> httpx.Client:
        """Return a new client, for one of several threads, or with other connections."""
        # To load the system's certificates would take longer than the requests.
        return httpx.Client(base_url=self.url, timeout=LIMIT, trust_env=False, verify=False)

    def complaints(self) -> list[str]:
        """Return the log, but for the lines about a worker's begin and end and the version."""
        expected = (" INFO onerow: worker ", " WARNING onerow: PostgreSQL ")
        lines = self.log.read_text().splitlines()
        return [line for line in lines if not any(each in line for each in expected)]

    def repaired(self) -> list[str]:
        """Return the lines of the log about connections that its pools had to repair."""
        log = self.log.read_text()
        patterns = [LEFT_OPEN] if GIVEN_UP.search(log) else [LEFT_OPEN, BROKEN]
        return [line for line in log.splitlines() if any(each.search(line) for each in patterns)]

    def await_ready(self) -> None:
        """Wait until /ready says so. On a busy machine its own second may not be enough."""
        until(lambda: self.http.get("/ready").status_code == 200)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement beside the service; return its rows."""
        return sql(self.database, query, *parameters)

    def sessions_in_transaction(self) -> int:
        """Return how many of the service's connections are in a transaction, at work or idle."""
        rows = self.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'onerow'"
            " AND datname = current_database() AND xact_start IS NOT NULL"
        )
        return int(rows[0][0])

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        self.process.send_signal(signal_number)
        return self.process.wait(LIMIT)


def sql(database: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run one statement in a transaction of its own; return its rows."""
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(query, parameters)
        # cursor.description would not do: SELECT FROM, which has no columns, leaves it None.
        assert cursor.pgresult is not None
        answered = cursor.pgresult.status == psycopg.pq.ExecStatus.TUPLES_OK
        return cursor.fetchall() if answered else []


@contextmanager
def serving(*command: str, **settings: str) -> Iterator[Service]:
    """Start the service and wait until it serves; end it at the end if it still runs.

    Its pools must not have repaired any connection, unless the test has broken some.
    """
    with tempfile.NamedTemporaryFile("w", prefix="onerow-", suffix=".log") as log:
        process = subprocess.Popen(
            command or [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment(**{"PORT": "0", **settings}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        with process, process.stdout:
            try:
                line = process.stdout.readline()
                service = Service(process, line, Path(log.name), settings.get("DATABASE_URL", ""))
                with service.http:
                    yield service
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(LIMIT)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        raise
        if not service.connections_break:
            repaired = service.repaired()
            assert repaired == [], repaired


def collide(service: Service, name: str) -> list[httpx.Response]:
    """Create a department twice at once; return both answers, one of which took a second attempt.

    Neither can give its row an id before both have read that there is none. A lock on the table
    would stop a session before that, while it prepares the statements.
    """
    with psycopg.connect(service.database) as holder, ThreadPoolExecutor(2) as threads:
        row = holder.execute("SELECT pg_get_serial_sequence('departments', 'id')").fetchone()
        assert row is not None
        holder.execute(f"ALTER SEQUENCE {row[0]} CACHE 1".encode())
        waiting = f"SELECT FROM pg_locks WHERE NOT granted AND relation = '{row[0]}'::regclass"
        both = [threads.submit(service.post, "/departments", name=name) for _ in range(2)]
        until(lambda: len(service.sql(waiting)) == 2)
        holder.rollback()
        return [each.result() for each in both]


def workers(service: Service) -> list[psutil.Process]:
    """Return the workers, but for those that have ended."""
    found = []
    for child in psutil.Process(service.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def all_begun(service: Service) -> bool:
    """Return whether each worker has begun to serve."""
    return service.log.read_text().count(" begins") >= max(len(workers(service)), 1)


def both_serve(service: Service) -> bool:
    """Return whether both workers have all their connections, and so have loaded all code, too."""
    sessions = "SELECT FROM pg_stat_activity WHERE datname = current_database()"
    return len(service.sql(sessions + " AND application_name = 'onerow'")) == 2 * 8


def postmaster(data_dir: Path) -> int | None:
    """Return the process id of the server that runs on the folder, or None."""
    try:
        process = int((data_dir / "postmaster.pid").read_text().split()[0])
        os.kill(process, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return process


def connection_to(service: Service) -> httpx.AsyncClient:
    """Return a new client, for one of several that ask at once."""
    # To load the system's certificates would take longer than the requests.
    return httpx.AsyncClient(base_url=service.url, timeout=LIMIT, trust_env=False, verify=False)
