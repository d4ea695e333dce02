"""A service ends in order, so that no request is lost, and no later than it says."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from time import perf_counter

import httpx
import psutil
import psycopg
import pytest

from db.embedded import _url
from tests.faults.deploys import Traffic, rolling_restarts
from tests.proof.linearizability import Call, Key, Row
from tests.support.haproxy import HAPROXY
from tests.support.raw import LINES_HEAD, PAGE, chunked, connect, fill, next_answer
from tests.support.service import (
    LIMIT,
    Service,
    all_begun,
    both_serve,
    postmaster,
    serving,
    sql,
    temporary_data_dir,
    until,
    workers,
)
from web.lines import ENDING
from web.supervisor import SAME_SIGNAL

pytestmark = pytest.mark.alone

NEVER = "3600"  # seconds


@contextmanager
def in_flight(service: Service) -> Iterator[tuple[Future[httpx.Response], psycopg.Connection]]:
    """Send a POST; yield its answer to be, and the transaction that holds it up."""
    until(lambda: all_begun(service))  # a worker asks the database whether it is ready, too
    with closing(psycopg.connect(service.database)) as blocker, ThreadPoolExecutor(1) as thread:
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        answer = thread.submit(
            httpx.post, f"{service.url}/departments", json={"name": "in flight"}, timeout=LIMIT
        )
        until(lambda: service.sessions_in_transaction() > 0)
        yield answer, blocker


def is_listening(service: Service) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", service.port)) == 0


def get(service: Service, path: str) -> httpx.Response:
    """Return the answer to a GET on a new connection, as probes make them."""
    return httpx.get(f"{service.url}{path}", timeout=LIMIT)


def app_with(same_signal: float) -> tuple[str, ...]:
    """Return the command of a service for which signals within so many seconds are the same."""
    set_both = f"web.serving.SAME_SIGNAL = web.supervisor.SAME_SIGNAL = {same_signal}"
    code = f"import web.serving, web.supervisor; {set_both}; import app; app.main()"
    return sys.executable, "-c", code


each_signal = pytest.mark.parametrize(
    ("number", "signal_number"),
    [("2", signal.SIGTERM), ("1", signal.SIGINT), ("2", signal.SIGHUP)],
)


def signal_all(service: Service, signal_number: int) -> None:
    """Signal all processes, as a terminal or systemd does, and pass the signal on, as make does."""
    for process in (*workers(service), service.process):
        process.send_signal(signal_number)
    service.process.send_signal(signal.SIGTERM)


@each_signal
def test_while_it_drains_it_serves_and_is_not_ready(
    database: str, number: str, signal_number: int
) -> None:
    with serving(
        *app_with(same_signal=3600), DATABASE_URL=database, WORKERS=number, DRAIN_SECONDS=NEVER
    ) as service:
        service.await_ready()
        until(lambda: all_begun(service))
        signal_all(service, signal_number)

        def is_not_ready() -> bool:
            told = get(service, "/ready")
            if told.status_code == 200:
                return False  # one worker may have its signal later than the other
            assert told.status_code == 503
            assert told.headers["content-type"] == "application/problem+json"
            assert int(told.headers["retry-after"]) >= 1
            return True

        def closes(live: httpx.Response) -> bool:
            assert live.status_code == 200
            return bool(live.headers.get("connection") == "close")

        until(is_not_ready)
        # It serves, once more on each new connection and on each one from before.
        until(lambda: closes(get(service, "/live")))
        until(lambda: closes(service.http.get("/live")))
        assert "Traceback" not in service.log.read_text()
        service.stop(signal.SIGKILL)


@each_signal
def test_it_closes_and_ends_when_all_is_answered(
    database: str, number: str, signal_number: int
) -> None:
    with serving(
        *app_with(same_signal=3600),
        DATABASE_URL=database,
        WORKERS=number,
        DRAIN_SECONDS="1",
        RETRY_DEADLINE=NEVER,
    ) as service:
        service.await_ready()
        with in_flight(service) as (answer, blocker):
            signal_all(service, signal_number)
            until(lambda: not is_listening(service))
            service.process.send_signal(signal.SIGTERM)
            with pytest.raises(TimeoutError):  # still in flight, when it has long seen that signal
                answer.result(0.5)
            blocker.rollback()
            assert answer.result().status_code == 201
            assert answer.result().headers["connection"] == "close"
        assert service.process.wait(LIMIT) == 0
        assert "Traceback" not in service.log.read_text()


def test_an_answer_in_flight_at_the_signal_is_the_last_on_its_connection(database: str) -> None:
    with serving(DATABASE_URL=database, DRAIN_SECONDS=NEVER, RETRY_DEADLINE=NEVER) as service:
        service.await_ready()
        with in_flight(service) as (answer, blocker):
            service.process.send_signal(signal.SIGTERM)
            until(lambda: get(service, "/ready").status_code == 503)
            blocker.rollback()
            assert answer.result().headers["connection"] == "close"
        until(lambda: ends_by_a_signal(service))


def test_lines_are_sent_elsewhere_while_it_drains(database: str) -> None:
    with (
        serving(DATABASE_URL=database, DRAIN_SECONDS=NEVER) as service,
        connect(service) as connection,
    ):
        read = connection.makefile("rb")
        connection.sendall(LINES_HEAD + chunked(b'{"name": "before"}\n'))
        assert next_answer(read)["status"] == 201
        service.process.send_signal(signal.SIGTERM)
        until(lambda: get(service, "/ready").status_code == 503)
        connection.sendall(chunked(b'{"name": "behind"}\n'))
        told = next_answer(read)
        assert (told["status"], told.get("detail")) == (503, ENDING)
        assert read.read() == b"\r\n0\r\n\r\n"
        service.stop(signal.SIGKILL)


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_second_signal_ends_it_at_once(number: str) -> None:
    with temporary_data_dir() as data_dir:
        settings = {"WORKERS": number, "DRAIN_SECONDS": NEVER, "RETRY_DEADLINE": NEVER}
        with serving(DATA_DIR=str(data_dir), **settings) as service:
            service.database = _url(data_dir)
            service.connections_break = True  # those of the requests that are cut short
            service.await_ready()
            with in_flight(service) as (answer, _):
                until(lambda: ends_by_a_signal(service))
                assert service.process.returncode == 0
                assert isinstance(answer.exception(), httpx.TransportError)
                assert "Traceback" not in service.log.read_text()
        assert postmaster(data_dir) is None


@pytest.mark.parametrize("first", ["seen", "not seen yet"])
def test_a_second_signal_is_heard_whenever_it_comes(database: str, first: str) -> None:
    # The supervisor looks for signals every half second, so that it may see both at once.
    with serving(
        *app_with(same_signal=0), DATABASE_URL=database, WORKERS="2", DRAIN_SECONDS=NEVER
    ) as service:
        until(lambda: both_serve(service))
        service.process.send_signal(signal.SIGTERM)
        if first == "seen":
            until(lambda: get(service, "/ready").status_code == 503)
        # Not another SIGTERM, for a process that was not scheduled meanwhile gets one for two.
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(LIMIT) == 0


def ends_by_a_signal(service: Service) -> bool:
    """Send a signal; return whether the service ends while the next would count as the same."""
    service.process.send_signal(signal.SIGTERM)
    try:
        service.process.wait(1.2 * SAME_SIGNAL)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize("number", ["1", "2"])
def test_the_embedded_server_stops_last(number: str) -> None:
    with temporary_data_dir() as data_dir:
        with serving(DATA_DIR=str(data_dir), WORKERS=number, RETRY_DEADLINE=NEVER) as service:
            service.database = _url(data_dir)
            service.await_ready()
            with in_flight(service) as (answer, blocker):
                service.process.send_signal(signal.SIGTERM)
                until(lambda: not is_listening(service))
                blocker.rollback()
                assert answer.result().status_code == 201
            assert service.process.wait(LIMIT) == 0
        assert postmaster(data_dir) is None


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_client_that_does_not_read_cannot_keep_it_from_ending(database: str, number: str) -> None:
    with serving(DATABASE_URL=database, WORKERS=number, RETRY_DEADLINE="0.5") as service:
        fill(service)
        with connect(service, receive_buffer=1) as reader:
            reader.sendall(PAGE)
            reader.recv(1)
            service.process.send_signal(signal.SIGTERM)
            # The service gives itself 2 seconds here. It would give the reader 30.
            assert service.process.wait(20) == 0


def test_a_worker_that_hangs_cannot_keep_it_from_ending(database: str) -> None:
    with serving(
        *(sys.executable, "-m", "tests.support.impatient"),
        DATABASE_URL=database,
        WORKERS="2",
        RETRY_DEADLINE="0.5",
    ) as service:
        until(lambda: both_serve(service))
        workers(service)[0].suspend()
        assert service.stop() == 0


def test_workers_whose_parent_is_gone_do_not_wait(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2", DRAIN_SECONDS=NEVER) as service:
        until(lambda: both_serve(service))
        left = workers(service)
        service.stop(signal.SIGKILL)
        until(lambda: not is_listening(service))
        assert psutil.wait_procs(left, LIMIT)[1] == []


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
def test_a_rolling_restart_loses_no_request(database: str) -> None:
    traffic, verdict = rolling_restarts(database, times=1, requests=1000)
    assert set(traffic.statuses) == {200, 201}
    assert verdict.lost == verdict.doubled == 0


def test_the_verdict_sees_what_is_lost_and_what_is_doubled(database: str) -> None:
    key = Key("departments", "Research")
    ((id_,),) = sql(database, "INSERT INTO departments (name) VALUES ('Research') RETURNING id")

    def verdict(*calls: Call) -> tuple[int, int]:
        judged = Traffic(0, calls=list(calls)).verdict("", database, 0)
        return judged.lost, judged.doubled

    start = perf_counter()
    created = Call(0, "POST", key, start, start, 201, (Row("departments", id_, "Research"),))
    promised = Call(1, "POST", key, start, start, 201, (Row("departments", -1, "Research"),))
    assert verdict(created) == (0, 0)
    assert verdict(created, promised) == (1, 0)
    assert verdict(created, Call(1, "POST", key, start)) == (1, 0)
    sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    assert verdict(created) == (0, 1)
