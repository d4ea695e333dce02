"""The sides: this service, its peers, and the floors, each started on a database of its own."""

import asyncio
import json
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
from tests.bench.load import Load, send, stream
from tests.bench.operations import Operation
from tests.support.service import LIMIT, ROOT, Service, environment, serving, until

PEERS = Path(__file__).parent / ".venv" / "bin"

# So many keys are made for each second of a round, which is more than any side can take.
KEYS_A_SECOND = 20_000

# So many lines are sent for each second of a round, however long they take.
LINES_A_SECOND = 10_000

# It takes an operation, the mark of the round, the number of connections, and seconds.
Fire = Callable[[Operation, str, int, int], Load]


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
    port: int, table: Table, operation: Operation, mark: str, connections: int, seconds: int
) -> Load:
    """Send requests over HTTP; return their load, or that of their keys where they have many."""
    made = operation.requests(table, mark, seconds)
    requests = [*islice(made, seconds * KEYS_A_SECOND // operation.keys)]
    next_second()  # by then the last requests of the side before are over
    if operation.streamed:
        bodies = [request.body for request in requests[: seconds * LINES_A_SECOND]]
        return asyncio.run(stream(port, bodies))
    load = send(port, requests, connections, seconds)
    load.requests *= operation.keys
    load.refused *= operation.keys
    return load


@contextmanager
def onerow(workers: int, table: Table, **settings: str) -> Iterator[Running]:
    """Start this service, with its default settings but for these."""
    with serving(DATABASE_URL=table.url, WORKERS=str(workers), **settings) as service:
        check(service.port)
        check_others(service.port)
        yield Running(partial(fire_and_count, service, table), service.process.pid)


def fire_and_count(
    service: Service, table: Table, operation: Operation, mark: str, connections: int, seconds: int
) -> Load:
    """Send requests; ask the service how many attempts it ran again."""
    started = int(time()) + 1  # the service counts its traffic by whole seconds
    load = fire_at(service.port, table, operation, mark, connections, seconds)
    next_second()
    rows = service.http.get("/inspect/traffic.json").json()["rows"]
    load.retried = sum(row["retried"] for row in rows if row["second"] >= started)
    return load


def next_second() -> None:
    sleep(1 - time() % 1)


@contextmanager
def peer(command: Sequence[str], whole: bool, table: Table) -> Iterator[Running]:
    """Start a program of tests/bench/peers under its server, with a free port for PORT.

    It serves all operations if it is `whole`, and otherwise POSTs of one key.
    """
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
            if whole:
                check_others(port)
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

    def fire(operation: Operation, mark: str, connections: int, seconds: int) -> Load:
        return pgbench(table.url, operation.name, table.rows, mark, connections, seconds)

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


def check_others(port: int) -> None:
    """Assert that the side serves the other operations."""
    first, second, third = (f"check {os.urandom(8).hex()}" for _ in range(3))
    items = [{"department_id": 1, "name": name} for name in (first, second)]
    lines = {"Content-Type": "application/x-ndjson"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LIMIT) as http:
        row = http.post("/employees", json=items[0]).json()
        assert http.get(f"/employees/{row['id']}").json() == row
        page = {"department_id": 1, "after": row["id"] - 1, "limit": 20}
        assert http.get("/employees", params=page).json()["items"] == [row]
        told = http.post("/employees", json=[*items, items[1]]).json()
        assert [each["status"] for each in told] == [200, 201, 200]
        assert [each["row"]["name"] for each in told] == [first, second, second]
        items[0]["name"] = third
        sent = b"\n".join(json.dumps(each).encode() for each in items)
        answered = http.post("/employees", content=sent, headers=lines).text.splitlines()
        told = [json.loads(line) for line in answered]
        assert [(each["status"], each["row"]["name"]) for each in told] == [
            (201, third),
            (200, second),
        ]
        statuses = [http.delete(f"/employees/{row['id']}").status_code for _ in range(2)]
        assert statuses == [204, 404]
        assert http.get(f"/employees/{row['id']}").status_code == 404


GUNICORN = ("gunicorn", "--workers=2", "--threads=16", "--keep-alive=60", "--bind=127.0.0.1:PORT")
UVICORN = ("uvicorn", "--workers=2", "--loop=uvloop", "--http=httptools", "--no-access-log",
           "--log-level=warning", "--port=PORT")  # fmt: skip


def peer_side(name: str, index: Index, server: Sequence[str], module: str) -> Side:
    command = (*server, f"tests.bench.peers.{module}:app")
    return Side(name, index, partial(peer, command, name in plan.WHOLE))


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
