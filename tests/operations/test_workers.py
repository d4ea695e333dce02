"""Workers share a port, replace each other, and end together."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
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


def both_listen(service: Service) -> bool:
    """Return whether both workers take connections."""
    having = [worker.net_connections("tcp") for worker in workers(service)]
    return sum(any(each.status == "LISTEN" for each in has) for has in having) == 2


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


def test_connections_do_not_wait_for_a_worker_that_cannot_start(
    database: str, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    script = script_of(tmp_path, f"import os\n    assert not os.path.exists({str(flag)!r})")
    settings = {"DATABASE_URL": database, "WORKERS": "2", "PYTHONPATH": str(ROOT)}
    with serving(sys.executable, script, **settings) as service:
        until(lambda: both_serve(service))
        flag.touch()
        workers(service)[0].kill()
        until(lambda: service.log.read_text().count("ended, with exit code 1") > 1)
        with connections(service) as opened:
            for each in opened:
                each.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            for each in opened:
                with each.makefile("rb") as answer:
                    assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        flag.unlink()
        until(lambda: both_listen(service))
        with connections(service):
            until(lambda: sum(accepted(service)) >= CONNECTIONS)
            assert 0 not in accepted(service)


def test_connections_wait_for_a_worker_if_there_is_no_other(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="1", RELOAD="1") as service:
        service.await_ready()
        workers(service)[0].kill()
        with service.client() as client:
            assert client.get("/live").status_code == 200


def test_a_worker_that_hangs_is_replaced(database: str) -> None:
    code = "import web.supervisor; web.supervisor.HANGS = 3; import app; app.main()"
    with serving(sys.executable, "-c", code, DATABASE_URL=database, WORKERS="2") as service:
        until(lambda: both_serve(service))
        hanging = workers(service)[0]
        hanging.suspend()
        until(lambda: hanging not in workers(service) and both_serve(service))
        assert f"worker {hanging.pid} does not answer" in service.log.read_text()


@pytest.mark.parametrize("numbers", [("1", "2"), ("2", "2"), ("2", "1")], ids="-".join)
def test_the_next_service_gets_the_port_while_connections_are_still_closing(
    numbers: tuple[str, str], database: str
) -> None:
    port = "0"
    for number in numbers:
        with serving(DATABASE_URL=database, WORKERS=number, PORT=port) as service:
            port = str(service.port)
            with connections(service) as opened:
                for each in opened:
                    each.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert each.recv(12) == b"HTTP/1.1 200"
                service.stop()  # it closes first, so the kernel keeps the connections for a minute


def test_two_services_do_not_share_a_port(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        port = str(service.port)
        another = run("app.py", DATABASE_URL=database, WORKERS="2", PORT=port)
        assert another.returncode == 1
        assert f"PORT: {port} is taken on 127.0.0.1" in another.stderr


def test_a_service_ends_if_a_worker_cannot_start(database: str, tmp_path: Path) -> None:
    script = script_of(tmp_path, "app.open_pool = None")
    ended = run(script, DATABASE_URL=database, WORKERS="2", PORT="0", PYTHONPATH=str(ROOT))
    assert ended.returncode == STARTUP_FAILURE


def script_of(folder: Path, in_workers: str) -> str:
    """Return the path of a script that starts the service, with these lines in its workers."""
    script = folder / "script.py"
    script.write_text(
        f"import app\nif __name__ == '__main__':\n    app.main()\nelse:\n    {in_workers}\n"
    )
    return str(script)


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
