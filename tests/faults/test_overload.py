"""Overload and hostile callers cost the service bounded time and memory.

The tests send all through raw sockets, to two workers.
"""

import asyncio
import json
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from select import select
from threading import Event
from typing import Any

import psutil
import psycopg
import pytest

from tests.faults.deploys import Traffic
from tests.support.raw import PAGE, PAGE_SIZE, Answer, Caller, connect, fill, request
from tests.support.service import LIMIT, Service, both_serve, serving, until, workers

pytestmark = pytest.mark.alone

# Bytes that a flood of hundreds of MB, or a thousand connections, may add to a worker.
GROWTH = 32 * 2**20

CONNECTIONS = 2000

# A deadline, in seconds, for requests that must outlast whatever holds them up.
NEVER = "3600"

POST = b"POST /departments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def service(new_database: Any) -> Iterator[Service]:
    with serving(DATABASE_URL=new_database(), WORKERS="2") as service:
        until(lambda: both_serve(service))
        yield service


@pytest.fixture(scope="module")
def impatient(new_database: Any) -> Iterator[Service]:
    with serving(
        *(sys.executable, "-m", "tests.support.impatient"),
        DATABASE_URL=new_database(),
        WORKERS="2",
        RETRY_DEADLINE="1",
    ) as service:
        until(lambda: both_serve(service))
        yield service


def memory(service: Service) -> int:
    """Return the memory of the larger worker, in bytes."""
    return max(int(worker.memory_info().rss) for worker in workers(service))


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the service closes."""
    received = bytearray()
    try:
        while data := connection.recv(2**20):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def flood(connection: socket.socket, data: bytes, most: int = 2**30) -> bytes:
    """Send the data again and again until an answer comes or the service closes; return that."""
    sent = 0
    try:
        while not select([connection], [], [], 0)[0]:
            sent += connection.send(data)
            assert sent < most, "it takes whatever comes"
        return connection.recv(65536)
    except (ConnectionResetError, BrokenPipeError):
        return b""


def assert_refused(received: bytes, status: int) -> None:
    """Assert that this is a problem with this status, and the last answer on its connection."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert json.loads(body)["status"] == status


# Requests that never end

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a header": (b"GET /live HTTP/1.1\r\nX: ", b"a" * 65536, 431),
    "headers": (b"GET /live HTTP/1.1\r\n", b"a: b\r\n" * 10000, 431),
    "a path": (b"GET /", b"a" * 65536, 431),
    "empty lines": (b"", b"\r\n" * 30000, 431),
    "noise": (b"", bytes(range(256)) * 256, 400),
    "a body": (POST + b"Content-Length: 1000000000000\r\n\r\n", b" " * 65536, 413),
    "chunks": (CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n", 413),
    "chunks of a byte": (CHUNKED, b"1\r\n \r\n" * 10000, 413),
    "an extension of a chunk": (CHUNKED + b"1;", b"a" * 65536, None),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"a" * 65536, None),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 10000, None),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_cut_off(service: Service, what: str) -> None:
    start, rest, status = ENDLESS[what]
    before = memory(service)
    with connect(service) as connection:
        connection.sendall(start)
        received = flood(connection, rest)
    if status is not None:
        assert received.startswith(b"HTTP/1.1 %d " % status)
        assert b"application/problem+json" in received
    assert memory(service) - before < GROWTH
    assert service.http.get("/live").status_code == 200
    assert service.complaints() == []


def test_requests_in_a_row_without_reading_the_answers_are_cut_off(impatient: Service) -> None:
    before = memory(impatient)
    requests = request("GET", "/departments") * 200_000  # 20 MB, which would become 800
    with connect(impatient) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(requests)
    assert memory(impatient) - before < GROWTH


def test_requests_in_a_row_wait_for_those_before(database: str) -> None:
    """They may be many, for the client cannot send what the service does not yet take."""
    last = ANSWERED.replace(b"Host", b"Connection: close\r\nHost")
    sent = request("POST", "/departments", {"name": "Research"}) + ANSWERED * 20_000 + last
    with (
        serving(DATABASE_URL=database, RETRY_DEADLINE=NEVER) as service,
        psycopg.connect(database) as blocker,
        connect(service) as connection,
        ThreadPoolExecutor(1) as threads,
    ):
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        sending = threads.submit(connection.sendall, sent)
        until(lambda: service.sessions_in_transaction() > 0)
        blocker.rollback()
        received = everything(connection)
        sending.result()
    assert received.startswith(b"HTTP/1.1 201 ")
    assert received.count(b"HTTP/1.1 200 OK") == 20_001


def test_an_answer_to_a_client_that_is_gone_is_no_error(database: str) -> None:
    """The service goes on and logs no error."""
    with (
        serving(DATABASE_URL=database, RETRY_DEADLINE=NEVER) as service,
        psycopg.connect(database) as blocker,
    ):
        service.await_ready()
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        with connect(service) as connection:
            connection.sendall(request("POST", "/departments", {"name": "Research"}))
            until(lambda: service.sessions_in_transaction() > 0)
            reset_at_close = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_close)
        blocker.rollback()
        until(lambda: service.sql("SELECT count(*) FROM departments") == [(1,)])
        assert service.post("/departments", name="Research").status_code == 200
        assert service.stop() == 0
        assert service.complaints() == []


def test_the_bounds_are_where_they_are_said_to_be(service: Service) -> None:
    def answer(headers: bytes) -> bytes:
        with connect(service) as connection:
            connection.sendall(
                b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers
            )
            return everything(connection)

    def many(headers: int) -> bytes:
        return b"".join(b"X-%d: a\r\n" % n for n in range(headers - 2)) + b"\r\n"

    assert answer(many(100)).startswith(b"HTTP/1.1 200 ")
    assert_refused(answer(many(101)), 431)
    assert answer(b"X: " + b"a" * 16000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert_refused(answer(b"X: " + b"a" * 2 * 16384 + b"\r\n\r\n"), 431)


def test_requests_in_a_row_are_answered_in_a_row(service: Service) -> None:
    with connect(service) as connection:
        last = request("GET", "/live").replace(b"Host", b"Connection: close\r\nHost")
        connection.sendall(request("GET", "/live") * 15 + last)
        assert everything(connection).count(b"HTTP/1.1 200 OK") == 16


NESTED = {
    "arrays": b"[" * 16384,
    "objects": b'{"name":' * 2048,
    "both": b'[{"name":' * 1800,
    "closed": b"[" * 8192 + b"]" * 8192,
    "in a field": b'{"name":' + b"[" * 8000 + b"]" * 8000 + b"}",
    "a number": b'{"name":' + b"9" * 16000 + b"}",
}


@pytest.mark.parametrize("what", NESTED)
def test_a_body_that_is_nested_deeply_is_refused(service: Service, what: str) -> None:
    before = {worker.pid for worker in workers(service)}
    with connect(service) as connection:
        body = NESTED[what]
        connection.sendall(
            POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        received = everything(connection)
    assert_refused(received, json.loads(received.partition(b"\r\n\r\n")[2])["status"])
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 422 "))
    assert {worker.pid for worker in workers(service)} == before


# Callers that take their time

ANSWERED = request("GET", "/live")
SLOW = {
    "nothing": (b"", b""),
    "a line": (b"GET /li", b"a"),
    "headers": (b"GET /live HTTP/1.1\r\nHost: localhost\r\nX: ", b"a"),
    "nothing after an answer": (ANSWERED, b""),
    "empty lines after an answer": (ANSWERED, b"\r\n"),
    "a line after an answer": (ANSWERED + b"GET /li", b"a"),
    "a body without end, an answer": (CHUNKED + b"1\r\n", b""),
    "anything after the last answer": (b"This is no HTTP.\r\n\r\n", b"a"),
    "a body after its refusal, an answer": (POST + b"Content-Length: 999999\r\n\r\n", b" " * 9999),
}


def test_a_client_that_takes_long_is_disconnected(impatient: Service) -> None:
    with ThreadPoolExecutor(len(SLOW)) as threads:  # each takes a second, so all run at once
        received = dict(
            zip(
                SLOW,
                threads.map(lambda slow: trickle(impatient, *slow), SLOW.values()),
                strict=True,
            )
        )
    for what, answer in received.items():
        answers = int("answer" in what)
        assert answer.count(b"\r\n\r\n") == answers, what
        assert answer.startswith(b"HTTP/1.1 ") == answers, what


def trickle(service: Service, start: bytes, rest: bytes) -> bytes:
    """Send a request that never ends, until the service closes; return what came."""
    received = bytearray()

    with connect(service) as connection:
        connection.sendall(start)

        def closed() -> bool:
            try:
                if not select([connection], [], [], 0.1)[0]:
                    connection.sendall(rest)
                    return False
                data = connection.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                return True
            received.extend(data)
            return not data

        until(closed)
        # The service must close its direction of the connection, too.
        port = connection.getsockname()[1]
        until(lambda: port not in clients(service))
    return bytes(received)


def test_bodies_that_no_handler_reads_are_not_kept(database: str) -> None:
    body = b"a" * 200_000
    get = b"GET /live HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with (
        serving(DATABASE_URL=database, WORKERS="2", MAX_BODY=str(len(body))) as service,
        ExitStack() as stack,
    ):
        until(lambda: both_serve(service))
        before = memory(service)
        for _ in range(500):  # makes 100 MB
            connection = stack.enter_context(connect(service))
            connection.sendall(get)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert memory(service) - before < GROWTH


def test_what_a_refused_client_has_sent_is_not_kept(service: Service) -> None:
    before = memory(service)
    with ExitStack() as stack:
        refused = [stack.enter_context(connect(service)) for _ in range(500)]
        for connection in refused:
            connection.sendall(b"\0" * 200_000)  # makes 100 MB
        for connection in refused:
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert memory(service) - before < GROWTH


def test_bodies_that_do_not_end_are_bounded_together(database: str) -> None:
    size = 10**6
    post = POST + b"Content-Length: %d\r\n\r\n" % size + b" " * (size - 1)
    settings = {"MAX_BODY": str(size), "RETRY_DEADLINE": NEVER}
    with serving(DATABASE_URL=database, WORKERS="2", **settings) as service, ExitStack() as stack:
        until(lambda: both_serve(service))
        before = memory(service)
        askers = []
        for _ in range(300):  # makes 300 MB
            askers.append(stack.enter_context(connect(service)))
            with suppress(ConnectionResetError, BrokenPipeError):
                askers[-1].sendall(post)
        # A worker keeps 64 MB and one body more, and that is 69 of these.
        until(lambda: len(select(askers, [], [], 0)[0]) >= 300 - 2 * 69)
        for asker in select(askers, [], [], 0)[0]:
            assert_refused(everything(asker), 503)
        assert memory(service) - before < 2 * 64 * 2**20
        stack.close()
        until(lambda: len(clients(service)) <= 1)
        assert service.post("/departments", name="after that").status_code == 201


def test_half_a_head_does_not_delay_the_end(database: str) -> None:
    """A client that does not close after its last answer does not delay it either."""
    with (
        serving(DATABASE_URL=database, RETRY_DEADLINE=NEVER) as service,
        connect(service) as half,
        connect(service) as answered,
    ):
        service.await_ready()
        half.sendall(b"GET /live HTTP/1.1\r\nHost: loc")
        answered.sendall(ANSWERED.replace(b"Host", b"Connection: close\r\nHost"))
        assert everything(answered).startswith(b"HTTP/1.1 200 ")
        service.process.send_signal(signal.SIGTERM)
        assert everything(half) == b""
        assert service.process.wait(LIMIT) == 0


def test_an_upgrade_is_not_taken(service: Service) -> None:
    upgrade = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
    with connect(service) as connection:
        for protocol in (b"websocket", b"h2c"):
            connection.sendall(ANSWERED.replace(b"Host: localhost\r\n", upgrade % protocol))
            received = connection.recv(65536)
            while not received.endswith(b"}"):
                data = connection.recv(65536)
                assert data, received
                received += data
            assert received.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_the_answer_is_disconnected(impatient: Service) -> None:
    fill(impatient)
    with connect(impatient, receive_buffer=1) as reader:
        reader.sendall(PAGE)
        reader.recv(1)
        until(lambda: len(clients(impatient)) == 0)
        assert len(everything(reader)) < PAGE_SIZE


def test_unread_answers_are_bounded_together(database: str) -> None:
    settings = {"DATABASE_URL": database, "WORKERS": "2", "RETRY_DEADLINE": NEVER}
    with serving(**settings) as service, ExitStack() as stack:
        until(lambda: both_serve(service))
        fill(service)
        before = memory(service)
        readers = [stack.enter_context(connect(service, receive_buffer=1)) for _ in range(300)]
        for reader in readers:
            reader.sendall(PAGE)
        for reader in readers:
            reader.recv(1)
        # A worker keeps 64 MB, of 200 and more, and has eight answers in the making.
        assert memory(service) - before < 2 * 64 * 2**20
        assert len(clients(service)) < len(readers)
        assert service.http.get("/live").status_code == 200


def clients(service: Service) -> set[int]:
    """Return the ports of the clients that the workers have connections with."""
    return {
        connection.raddr.port
        for worker in workers(service)
        for connection in worker.net_connections("tcp")
        if connection.status != psutil.CONN_LISTEN and connection.laddr.port == service.port
    }


# More load than the service can serve


def test_idle_connections_cost_little_and_keep_nobody_out(service: Service) -> None:
    before = memory(service)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(connect(service))
        until(lambda: len(clients(service)) >= CONNECTIONS)
        assert memory(service) - before < GROWTH
        assert service.post("/departments", name="among the idle").status_code == 201


def test_2000_at_once(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        until(lambda: both_serve(service))
        before = memory(service)
        statuses = asyncio.run(at_once(service))
        assert set(statuses) <= {200, 201, 503}
        # Two workers with 8 connections and 512 that wait for one.
        assert statuses[200] + statuses[201] <= 2 * (8 + 512)
        assert statuses.total() == CONNECTIONS
        assert memory(service) - before < 2 * GROWTH
        rows = service.sql("SELECT count(*), count(DISTINCT name) FROM departments")
        assert rows == [(statuses[201], statuses[201])]
        assert service.post("/departments", name="after that").status_code == 201


async def at_once(service: Service) -> Counter[int]:
    """Post from all connections while the table is locked; return how often each status came."""
    callers = [Caller(service.port) for _ in range(CONNECTIONS)]
    for caller in callers:
        await caller.connect()
    blocker = psycopg.connect(service.database)
    blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
    posts = [
        asyncio.create_task(caller.call("POST", "/departments", {"name": f"number {n // 2}"}))
        for n, caller in enumerate(callers)
    ]
    # As many as connection and queue hold wait; all others are refused at once.
    refused: list[Answer] = []
    for answered in asyncio.as_completed(posts):
        refused.append(await answered)
        if len(refused) == CONNECTIONS - 2 * (8 + 512):
            break
    for answer in refused:
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
    blocker.close()
    answers = await asyncio.gather(*posts)
    for caller in callers:
        await caller.close()
    return Counter(answer.status for answer in answers)


def test_an_overloaded_service_loses_nothing(database: str) -> None:
    with serving(DATABASE_URL=database, POOL_SIZE="2", POOL_QUEUE="8") as service:
        traffic = Traffic(service.port)
        asyncio.run(traffic.clients(64, lambda: {200, 201, 503} <= set(traffic.statuses)))
    assert set(traffic.statuses) == {200, 201, 503}
    verdict = traffic.verdict("", database, 0)
    assert verdict.lost == verdict.doubled == 0


def test_busy_is_ready(database: str) -> None:
    # /ready waits until another request is served. It has twenty seconds for that here, instead of
    # the one in which none may be served where the machine itself is busy.
    patient = "import web.health; web.health.READY_DEADLINE = 20; import app; app.main()"
    settings = {"POOL_SIZE": "1", "POOL_QUEUE": "1", "RETRY_DEADLINE": NEVER}
    with (
        serving(sys.executable, "-c", patient, DATABASE_URL=database, **settings) as service,
        psycopg.connect(database) as blocker,
        ThreadPoolExecutor(2) as threads,
    ):
        service.await_ready()
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        posts = [threads.submit(service.post, "/departments", name="busy") for _ in range(2)]
        until(lambda: "onerow_pool_waiting 1.0" in service.http.get("/metrics").text)
        with connect(service) as prober:
            prober.sendall(request("GET", "/ready"))
            assert service.post("/departments", name="one too many").status_code == 503
            blocker.rollback()
            assert prober.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert sorted(post.result().status_code for post in posts) == [200, 201]


def test_stuck_is_not_ready(database: str) -> None:
    with (
        serving(
            DATABASE_URL=database, POOL_SIZE="1", POOL_QUEUE="1", RETRY_DEADLINE=NEVER
        ) as service,
        psycopg.connect(database) as blocker,
        ThreadPoolExecutor(2) as threads,
    ):
        service.await_ready()
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        # One POST has the connection, and one waits for it.
        posts = [threads.submit(service.post, "/departments", name="stuck") for _ in range(2)]
        until(lambda: service.sessions_in_transaction() > 0)
        answers = [service.http.get("/ready").status_code for _ in range(2)]
        blocker.rollback()
        assert answers == [503, 503]
        assert sorted(post.result().status_code for post in posts) == [200, 201]
        service.await_ready()


def test_connections_that_come_back_from_nothing_are_no_sign_of_life(database: str) -> None:
    # Each attempt gives up after half a second of waiting for the lock, and more requests wait.
    settings = {"POOL_SIZE": "1", "POOL_QUEUE": "4", "RETRY_DEADLINE": "1"}
    over = Event()
    with (
        serving(DATABASE_URL=database, **settings) as service,
        psycopg.connect(database) as blocker,
        ThreadPoolExecutor(8) as threads,
    ):

        def post_until_over() -> set[int]:
            statuses = set()
            while not over.is_set():
                statuses.add(service.post("/departments", name="stuck").status_code)
            return statuses

        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        posters = [threads.submit(post_until_over) for _ in range(8)]
        until(lambda: service.sessions_in_transaction() > 0)
        try:
            answers = {service.http.get("/ready").status_code for _ in range(4)}
        finally:
            over.set()
        assert answers == {503}
        assert set().union(*(poster.result() for poster in posters)) == {503}


def test_few_files_mean_few_connections(database: str) -> None:
    """The number of files that it may open decides how many connections the service takes."""
    limited = ("sh", "-c", f"ulimit -n 120; exec {sys.executable} app.py")
    with serving(*limited, DATABASE_URL=database, WORKERS="2") as service, ExitStack() as stack:
        # Each worker takes 40 connections, refuses 40 with an answer, and closes the rest.
        callers = [stack.enter_context(connect(service)) for _ in range(500)]
        until(lambda: len(select(callers, [], [], 0.1)[0]) >= 500 - 2 * 40)
        told = [caller for caller in select(callers, [], [], 0)[0] if everything(caller)]
        assert len(told) >= 40
        stack.close()
        until(lambda: len(clients(service)) <= 1)
        assert service.post("/departments", name="after that").status_code == 201
        assert service.http.get("/inspect").status_code == 200
        assert service.complaints() == []
