"""Workers share a port, replace each other, and end together."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from uvicorn.config import STARTUP_FAILURE

from tests.support.service import (
    LIMIT,
    ROOT,
    Service,
    both_serve,
    environment,
    serving,
    until,
    workers,
)

# The kernel gives all of so many connections to the same of two workers once in 2**63 times.
CONNECTIONS = 64


@contextmanager
def connections(service: Service) -> Iterator[list[socket.socket]]:
    """Open connections to the service, one right after the other."""
    address = ("127.0.0.1", service.port)
    with ExitStack() as opened:
        yield [
            opened.enter_context(socket.create_connection(address, LIMIT))
            for _ in range(CONNECTIONS)
        ]


def accepted(service: Service) -> list[int]:
    """Return the number of clients' connections that each worker has."""
    return [
        sum(bool(each.raddr) and each.laddr.port == service.port for each in has)
        for has in (worker.net_connections("tcp") for worker in workers(service))
    ]


def test_connections_that_come_at_once_are_shared_by_the_workers(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        until(lambda: both_serve(service))
        slow, _ = workers(service)
        slow.suspend()
        with connections(service):
            until(lambda: sum(accepted(service)) >= CONNECTIONS // 8)
            slow.resume()
            until(lambda: sum(accepted(service)) == CONNECTIONS)
            assert 0 not in accepted(service)


def test_a_connection_that_waits_for_a_killed_worker_is_for_its_successor(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        until(lambda: both_serve(service))
        workers(service)[0].kill()
        with connections(service) as opened:
            for each in opened:
                each.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                with each.makefile("rb") as answer:
                    assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


def test_a_worker_that_hangs_is_replaced(database: str) -> None:
    code = "import web.supervisor; web.supervisor.HANGS = 1; import app; app.main()"
    with serving(sys.executable, "-c", code, DATABASE_URL=database, WORKERS="2") as service:
        until(lambda: both_serve(service))
        hanging = workers(service)[0]
        hanging.suspend()
        until(lambda: hanging not in workers(service) and both_serve(service))
        assert f"worker {hanging.pid} does not answer" in service.log.read_text()


def test_two_services_do_not_share_a_port(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        port = str(service.port)
        another = run("app.py", DATABASE_URL=database, WORKERS="2", PORT=port)
        assert another.returncode == 1
        assert f"PORT: {port} is taken on 127.0.0.1" in another.stderr


def test_a_service_ends_if_a_worker_cannot_start(database: str, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import app\nif __name__ == '__main__':\n    app.main()\nelse:\n    app.open_pool = None\n"
    )
    path = str(ROOT)
    ended = run(str(script), DATABASE_URL=database, WORKERS="2", PORT="0", PYTHONPATH=path)
    assert ended.returncode == STARTUP_FAILURE


def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
