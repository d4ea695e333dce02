"""Workers share a port, replace each other, and end together."""

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import copytree

import httpx
import psutil
import psycopg
import pytest
from uvicorn.config import STARTUP_FAILURE

from tests.support.service import (
    LIMIT,
    ROOT,
    Service,
    run,
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


def listening(service: Service) -> list[bool]:
    """Return for each worker whether it takes connections."""
    having = [worker.net_connections("tcp") for worker in workers(service)]
    return [any(each.status == "LISTEN" for each in has) for has in having]


def both_listen(service: Service) -> bool:
    """Return whether two workers take connections."""
    return sum(listening(service)) == 2


def test_connections_that_come_at_once_are_shared_by_the_workers(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        until(lambda: both_listen(service))
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
        until(lambda: both_listen(service))
        flag.touch()
        workers(service)[0].kill()
        until(lambda: service.log.read_text().count("ended, with exit code 1") > 2)
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


@pytest.mark.long
def test_a_worker_stays_until_its_successor_serves(database: str, tmp_path: Path) -> None:
    flag, resources = tmp_path / "flag", tmp_path / "sql"
    copytree(ROOT / "sql" / "departments", resources / "departments")
    script = script_of(tmp_path, f"import os\n    assert not os.path.exists({str(flag)!r})")
    settings = {"DATABASE_URL": database, "RESOURCES": str(resources), "PYTHONPATH": str(ROOT)}
    with serving(sys.executable, script, RELOAD="1", **settings) as service:
        service.await_ready()
        (old,) = workers(service)
        flag.touch()
        get = resources / "departments" / "get.sql"
        get.write_text(f"{get.read_text()}\n")
        until(lambda: "does not come to serve: the old one stays" in service.log.read_text())
        assert old.is_running()
        assert service.post("/departments", name="Ada").status_code == 201
        flag.unlink()
        until(lambda: not old.is_running())
        with service.client() as client:
            assert client.post("/departments", json={"name": "Ada"}).status_code == 200


def test_connections_wait_for_a_worker_if_there_is_no_other(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="1", RELOAD="1") as service:
        service.await_ready()
        workers(service)[0].kill()
        with service.client() as client:
            assert client.get("/live").status_code == 200


# In the parent: a worker is found to hang soon, and a file tells that the supervisor knows that it
# serves.
NOTED = """
import pathlib, web.supervisor
web.supervisor.HANGS = 3
ask = web.supervisor.Worker.ask
def noted(worker):
    ask(worker)
    if worker.serves:
        pathlib.Path({folder!r}, str(worker.pid)).touch()
web.supervisor.Worker.ask = noted
"""
STUCK = "import time, web.health; web.health.check_ready = lambda *_: time.sleep(3600)"


@contextmanager
def noted(database: str, folder: Path, **settings: str) -> Iterator[Service]:
    """Start a service of two workers, of which /ready blocks one; wait until both serve."""
    settings |= {"DATABASE_URL": database, "WORKERS": "2", "PYTHONPATH": str(ROOT)}
    script = script_of(folder, STUCK, NOTED.format(folder=str(folder)))
    with serving(sys.executable, script, **settings) as service:
        until(lambda: sum((folder / str(each.pid)).exists() for each in workers(service)) == 2)
        yield service


@pytest.mark.parametrize("how", ["process stopped", "event loop stuck"])
def test_a_worker_that_hangs_is_replaced(how: str, database: str, tmp_path: Path) -> None:
    with noted(database, tmp_path) as service:
        before = workers(service)
        if how == "process stopped":
            before[0].suspend()
        else:
            with service.client() as client, suppress(httpx.TransportError):
                client.get("/ready")
        until(lambda: "does not answer, and was killed" in service.log.read_text())
        until(lambda: both_listen(service))
        assert workers(service) != before
        with service.client() as client:
            assert client.get("/live").status_code == 200


def test_connections_do_not_wait_for_a_worker_that_ends(database: str, tmp_path: Path) -> None:
    def kept() -> int:
        has = psutil.Process(service.process.pid).net_connections("tcp")
        return sum(each.status == "LISTEN" for each in has)

    with noted(database, tmp_path, RETRY_DEADLINE="60") as service, ThreadPoolExecutor(1) as thread:
        with psycopg.connect(database) as holder:
            holder.execute("LOCK TABLE departments IN SHARE ROW EXCLUSIVE MODE")
            answer = thread.submit(service.post, "/departments", name="Research")
            until(lambda: service.sessions_in_transaction() == 1)
            # The worker that has this request goes on until it is answered.
            workers(service)[accepted(service).index(1)].terminate()
            until(lambda: kept() == 1)
            with connections(service):
                until(lambda: sum(accepted(service)) == CONNECTIONS + 1)
        assert answer.result().status_code == 201


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
        another = run(sys.executable, "app.py", DATABASE_URL=database, WORKERS="2", PORT=port)
        assert another.returncode == 1
        assert f"PORT: {port} is taken on 127.0.0.1" in another.stderr


def test_a_service_ends_if_a_worker_cannot_start(database: str, tmp_path: Path) -> None:
    script = script_of(tmp_path, "app.open_pool = None")
    ended = run(
        sys.executable, script, DATABASE_URL=database, WORKERS="2", PORT="0", PYTHONPATH=str(ROOT)
    )
    assert ended.returncode == STARTUP_FAILURE


def script_of(folder: Path, in_workers: str, in_parent: str = "") -> str:
    """Return the path of a script that starts the service, with these lines in its workers."""
    script = folder / "script.py"
    script.write_text(
        f"import app\n{in_parent}\n"
        f"if __name__ == '__main__':\n    app.main()\nelse:\n    {in_workers}\n"
    )
    return str(script)
