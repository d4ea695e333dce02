"""The embedded server is started, found again, and stopped by the last process that needs it."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db.embedded import embedded_server
from db.programs import EmbeddedServerError
from tests.support.service import (
    LIMIT,
    ROOT,
    environment,
    postmaster,
    serving,
    sql,
    temporary_data_dir,
    until,
)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path
        if postmaster(path) is not None:
            # To enter and leave stops a server that a killed process has left running.
            with embedded_server(path):
                pass


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_the_server_stops_with_the_service_and_the_data_is_found_again(
    data_dir: Path, workers: str
) -> None:

    with serving(DATA_DIR=str(data_dir), WORKERS=workers) as service:
        assert service.post("/departments", name="Research").status_code == 201
        assert postmaster(data_dir) is not None
        assert service.stop(signal.SIGTERM) == 0
    assert postmaster(data_dir) is None

    with serving(DATA_DIR=str(data_dir), WORKERS=workers) as service:
        assert service.post("/departments", name="Research").status_code == 200
        assert service.stop(signal.SIGINT) == 0
    assert postmaster(data_dir) is None

    with serving(DATA_DIR=str(data_dir), WORKERS=workers) as service:
        assert service.post("/departments", name="Sales").status_code == 201
        port = service.port
        service.stop(signal.SIGKILL)
    left = postmaster(data_dir)
    assert left is not None, "nobody was there to stop it"

    # The workers of the killed service must end by themselves.
    until(lambda: not is_served(port))
    with serving(DATA_DIR=str(data_dir), WORKERS=workers) as service:
        assert postmaster(data_dir) == left
        assert service.post("/departments", name="Sales").status_code == 200
        service.stop()
    assert postmaster(data_dir) is None


def is_served(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.long
def test_ctrl_c_reaches_the_whole_group_and_still_ends_in_order(data_dir: Path) -> None:
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment(DATA_DIR=str(data_dir), PORT="0", WORKERS="2"),
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
        assert process.stdout is not None
        with process, process.stdout:
            assert b"onerow serves" in process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(LIMIT) == 0
        output.seek(0)
        assert "Traceback" not in output.read()
    assert postmaster(data_dir) is None


def test_it_prints_one_line(data_dir: Path) -> None:
    with serving(DATA_DIR=str(data_dir)) as service:
        assert service.url in service.line
        assert str(data_dir) in service.line
        assert "dbname=postgres" in service.line
        service.stop()
        assert service.process.stdout is not None
        assert service.process.stdout.read() == ""
        assert service.complaints() == []


def test_the_password_is_not_printed(database: str) -> None:
    with serving(DATABASE_URL=f"{database} password=hunter2") as service:
        assert "dbname=" in service.line
        assert "hunter2" not in service.line + service.log.read_text()


@pytest.mark.long
def test_the_last_to_leave_stops_it(data_dir: Path) -> None:
    with embedded_server(data_dir) as url:
        with embedded_server(data_dir) as same:
            assert same == url
        assert sql(url, "SELECT 1") == [(1,)]
    assert postmaster(data_dir) is None


@pytest.mark.long
def test_two_that_start_at_once_share_one_server(data_dir: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as processes:
        pids = processes.map(_postmaster_while_running, [data_dir] * 8, chunksize=1)
    assert None not in pids
    assert postmaster(data_dir) is None


def _postmaster_while_running(data_dir: Path) -> int | None:
    with embedded_server(data_dir) as url:
        sql(url, "SELECT 1")
        return postmaster(data_dir)


@pytest.mark.long
def test_a_server_killed_with_9_is_started_again(data_dir: Path) -> None:
    with embedded_server(data_dir) as url:
        sql(url, "CREATE TABLE kept AS SELECT 1 AS id")
        process = postmaster(data_dir)
        assert process is not None
        os.kill(process, signal.SIGKILL)
    with embedded_server(data_dir) as url:
        assert sql(url, "SELECT id FROM kept") == [(1,)]


@pytest.mark.long
def test_an_initdb_that_was_cut_short_is_done_again(data_dir: Path) -> None:
    unfinished = data_dir / ".initdb"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with embedded_server(data_dir) as url:
        assert sql(url, "SELECT 1") == [(1,)]


def test_a_folder_with_other_things_in_it_is_left_alone(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "thesis.txt").write_text("mine")
    with pytest.raises(EmbeddedServerError, match="in the way"), embedded_server(data_dir):
        pass
    assert [path.name for path in data_dir.iterdir()] == ["thesis.txt"]


@pytest.mark.long
def test_a_path_too_long_for_a_socket(data_dir: Path) -> None:
    deep = data_dir.parent / ("a" * 50) / ("it's, b c" * 8) / "data"
    with embedded_server(deep) as url:
        assert sql(url, "SELECT 1") == [(1,)]
    assert postmaster(deep) is None


@pytest.mark.long
def test_a_worker_killed_with_9_is_replaced(data_dir: Path) -> None:
    with serving(DATA_DIR=str(data_dir), WORKERS="2") as service:
        service.http.get("/ready")
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
        before = children.read_text().split()
        # The workers are the last children; the first is the resource tracker of multiprocessing.
        os.kill(int(before[-1]), signal.SIGKILL)
        until(lambda: "ended, with exit code -9" in service.log.read_text())
        assert before[-1] not in children.read_text().split()
        assert service.post("/departments", name="Research").status_code == 201
        service.stop()
    assert postmaster(data_dir) is None


@pytest.mark.long
@pytest.mark.parametrize("milliseconds", range(150, 850, 70))
def test_a_signal_during_the_start_leaves_no_server(data_dir: Path, milliseconds: int) -> None:
    # This runs initdb, which would take most of the time that the signals are spread over.
    with embedded_server(data_dir):
        pass
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(DATA_DIR=str(data_dir), PORT="0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        # The time decides which point of the start the signal hits. It is no wait for something.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(milliseconds / 1000)
        process.terminate()
        process.wait(LIMIT)
    assert postmaster(data_dir) is None


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_closed_terminal_stops_both(data_dir: Path, workers: str) -> None:
    with serving(DATA_DIR=str(data_dir), WORKERS=workers) as service:
        service.await_ready()
        assert service.stop(signal.SIGHUP) == 0
    assert postmaster(data_dir) is None


@pytest.mark.long
def test_the_callers_locale_does_not_matter(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    with embedded_server(data_dir) as url:
        assert sql(url, "SHOW server_encoding") == [("UTF8",)]


@pytest.mark.long
def test_a_server_with_no_connection_left_is_still_running(data_dir: Path) -> None:
    with embedded_server(data_dir) as url, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(psycopg.connect(url))
        with embedded_server(data_dir) as same:
            assert same == url


@pytest.mark.long
def test_the_server_takes_as_many_connections_as_the_service_may_open(data_dir: Path) -> None:
    with serving(DATA_DIR=str(data_dir), WORKERS="2", POOL_SIZE="60") as service:
        service.await_ready()
        with embedded_server(data_dir) as url:
            ((most,),) = sql(url, "SELECT current_setting('max_connections')::int")
    assert most >= 120
