"""The sides: this service, its peers, and the floors, each started on a database of its own."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import sleep, time

import httpx

from tests.bench import plan
from tests.bench.databases import Index, Table
from tests.bench.floor import pgbench
from tests.bench.keys import Regime
from tests.bench.load import Load, post
from tests.support.service import LIMIT, ROOT, Service, environment, serving, until

PEERS = Path(__file__).parent / ".venv" / "bin"

# So many keys are made for each second of a round, which is more than any side can take.
KEYS_A_SECOND = 20_000

# It takes a regime, the mark of the round, the number of connections, and seconds.
Fire = Callable[[Regime, str, int, int], Load]


@dataclass(frozen=True)
class Running:
    """A side that is up."""

    fire: Fire
    pid: int | None = None  # of its main process; None if it has no server


@dataclass(frozen=True)
class Side:
    """A way to get or create a row; `start` has it running for as long as the block does."""

    name: str
    index: Index
    start: Callable[[Table], AbstractContextManager[Running]]


def fire_at(
    port: int, table: Table, regime: Regime, mark: str, connections: int, seconds: int
) -> Load:
    """Send keys of the regime over HTTP."""
    keys = islice(regime(table.rows, mark), seconds * KEYS_A_SECOND)
    next_second()  # by then the last requests of the side before are over
    return post(port, keys, connections, seconds)


@contextmanager
def onerow(workers: int, table: Table, **settings: str) -> Iterator[Running]:
    """Start this service, with its default settings but for these."""
    with serving(DATABASE_URL=table.url, WORKERS=str(workers), **settings) as service:
        check(service.port)
        yield Running(partial(fire_and_count, service, table), service.process.pid)


def fire_and_count(
    service: Service, table: Table, regime: Regime, mark: str, connections: int, seconds: int
) -> Load:
    """Send keys; ask the service how many attempts it ran again."""
    started = int(time()) + 1  # the service counts its traffic by whole seconds
    load = fire_at(service.port, table, regime, mark, connections, seconds)
    next_second()
    rows = service.http.get("/inspect/traffic.json").json()["rows"]
    load.retried = sum(row["retried"] for row in rows if row["second"] >= started)
    return load


def next_second() -> None:
    sleep(1 - time() % 1)


@contextmanager
def peer(command: Sequence[str], table: Table) -> Iterator[Running]:
    """Start a program of tests/bench/peers under its server, with a free port for PORT."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [PEERS / "python", "-m", *(word.replace("PORT", str(port)) for word in command)],
            cwd=ROOT,
            env=environment(DATABASE_URL=table.url, PYTHONWARNINGS="default"),
            stdout=log,
            stderr=log,
        )
        try:
            check(port, new=201 if "no_database" not in command[-1] else 200)
            yield Running(partial(fire_at, port, table), process.pid)
        except AssertionError as error:
            log.seek(0)
            error.add_note(log.read())
            raise
        finally:
            process.terminate()
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def pgbench_only(table: Table) -> Iterator[Running]:
    """PostgreSQL alone."""

    def fire(regime: Regime, mark: str, connections: int, seconds: int) -> Load:
        return pgbench(table.url, regime.__name__, table.rows, mark, connections, seconds)

    yield Running(fire)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check(port: int, new: int = 201) -> None:
    """Wait until the side serves; assert that it creates a row, finds it, and refuses bad input."""
    body = {"department_id": 1, "name": f"check {os.urandom(8).hex()}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LIMIT) as http:

        def up() -> bool:
            try:
                return http.get("/").status_code > 0
            except httpx.TransportError:
                return False

        until(up)
        first, second = (http.post("/employees", json=body) for _ in range(2))
        assert (first.status_code, second.status_code) == (new, 200), first.text + second.text
        assert first.json() == second.json()
        assert first.json().items() >= body.items()
        assert first.json().keys() == {"id", "department_id", "name", "created_at"}
        refused = http.post("/employees", json={"department_id": 1, "name": ""})
        assert 400 <= refused.status_code < 500, refused.text


GUNICORN = ("gunicorn", "--workers=2", "--threads=16", "--keep-alive=60", "--bind=127.0.0.1:PORT")
UVICORN = ("uvicorn", "--workers=2", "--loop=uvloop", "--http=httptools", "--no-access-log",
           "--log-level=warning", "--port=PORT")  # fmt: skip


def peer_side(name: str, index: Index, server: Sequence[str], module: str) -> Side:
    return Side(name, index, partial(peer, (*server, f"tests.bench.peers.{module}:app")))


SIDES = [
    Side(plan.THIS, "lookup", partial(onerow, 2)),
    Side(plan.THIS_SINGLE, "lookup", partial(onerow, 1)),
    Side(plan.THIS_PLAIN, "lookup", partial(onerow, 2, PIPELINE="0")),
    peer_side(plan.ASYNCPG, "unique", UVICORN, "asyncpg_app"),
    peer_side(plan.FASTAPI, "unique", UVICORN, "fastapi_app"),
    peer_side(plan.DJANGO, "unique", GUNICORN, "django_app"),
    peer_side(plan.FLASK, "plain", GUNICORN, "flask_recipe"),
    peer_side(plan.NO_DATABASE, "lookup", UVICORN, "no_database"),
    Side(plan.PGBENCH, "lookup", pgbench_only),
]
