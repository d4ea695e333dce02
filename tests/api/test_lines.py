"""A POST of lines is answered line by line while it arrives, in bounded memory."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from itertools import cycle
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.embedded import embedded_server
from db.schema import apply_schema
from tests.support.raw import LINES_HEAD, chunked, connect, next_answer
from tests.support.service import LIMIT, Service, serving, sql, temporary_data_dir, until
from tests.support.triggers import make_trigger
from web.lines import REQUESTS

LINES = {"Content-Type": "application/x-ndjson"}
CLIENTS = 6

WAYS: dict[str, dict[str, str]] = {"pipeline": {}, "plain": {"PIPELINE": "0"}}


@pytest.fixture(scope="module", params=["pipeline", pytest.param("plain", marks=pytest.mark.long)])
def service(request: pytest.FixtureRequest, new_database: Callable[[], str]) -> Iterator[Service]:
    with serving(DATABASE_URL=new_database(), WORKERS="1", **WAYS[request.param]) as service:
        yield service


def new() -> str:
    return str(uuid4())


def body(*items: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def post(service: Service, content: Any, path: str = "/departments", **headers: str) -> Any:
    answer = service.http.post(path, content=content, headers={**LINES, **headers})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


def statuses(told: list[dict[str, Any]]) -> list[int]:
    return [each["status"] for each in told]


def count(service: Service, name: str) -> int:
    ((number,),) = service.sql("SELECT count(*) FROM departments WHERE name LIKE %s", f"{name}%")
    return int(number)


def names(prefix: str, number: int) -> list[dict[str, str]]:
    return [{"name": f"{prefix} {n}"} for n in range(number)]


@pytest.mark.parametrize("number", [0, 1, 31, 2000])
def test_a_line_is_answered_by_a_line_in_order(service: Service, number: int) -> None:
    prefix = new()
    items = names(prefix, number)
    for status in (201, 200):
        told = post(service, body(*items))
        assert statuses(told) == [status] * number
        assert [each["row"]["name"] for each in told] == [item["name"] for item in items]
    assert count(service, prefix) == number


@pytest.mark.long
def test_a_transaction_has_no_more_keys_than_it_can_lock_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("db.embedded.PRED_LOCKS_PER_RELATION", -2)  # PostgreSQL's own default
    with temporary_data_dir() as data_dir, embedded_server(data_dir) as database:
        apply_schema(database)
        with serving(DATABASE_URL=database, RETRY_DEADLINE="60") as service:
            assert statuses(post(service, body(*names(new(), 300)))) == [201] * 300
            made = service.sql("SELECT count(*) FROM departments GROUP BY xmin")
            assert max(made) <= (31,)


def test_the_connection_goes_on(service: Service) -> None:
    with service.client() as http:
        ports = set()
        for _ in range(3):
            answer = http.post("/departments", content=body({"name": new()}), headers=LINES)
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            assert answer.headers["transfer-encoding"] == "chunked"
            assert "connection" not in answer.headers
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("line", "status", "pointer"),
    [
        (b'{"name": " "}', 422, "#/name"),
        (b'{"name": 7}', 422, "#/name"),
        (b"{}", 422, "#/name"),
        (b"[]", 422, "#"),
        (b"null", 422, "#"),
        (b'{"name": "a", "name": "b"}', 422, "#"),
        (b"{", 400, None),
        (b"\xff", 400, None),
        (b'{"name": "%s"}' % (b"x" * 20_000), 413, None),
        (b"x" * 300_000, 413, None),
    ],
)
def test_a_line_that_is_not_valid_stops_nothing(
    service: Service, line: bytes, status: int, pointer: str | None
) -> None:
    one, other = {"name": new()}, {"name": new()}
    told = post(service, body(one) + line + b"\n" + body(other))
    assert statuses(told) == [201, status, 201]
    assert [each["pointer"] for each in told[1].get("errors", [])] == [pointer] * bool(pointer)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(("size", "status"), [(16384, 201), (16385, 413)])
def test_a_line_may_have_as_many_bytes_as_a_body(
    service: Service, size: int, status: int, cut: bool
) -> None:
    line = (b'{"name": "%b"' % new().encode()).ljust(size - 1) + b"}"
    parts = [line, b"\n"] if cut else [line + b"\n"]
    assert statuses(post(service, parts)) == [status]


def test_a_last_line_that_is_too_long_and_has_no_end_is_answered(service: Service) -> None:
    content = body({"name": new()}) + b"x" * 300_000
    assert statuses(post(service, content)) == [201, 413]


def test_blank_lines_are_passed_over_and_the_last_needs_no_end(service: Service) -> None:
    content = b"\n \r\n" + body({"name": new()}) + b"\t\n" + body({"name": new()}).strip()
    assert statuses(post(service, content)) == [201, 201]


def test_what_the_table_refuses_is_told_of_that_line(service: Service) -> None:
    prefix = new()
    department = service.post("/departments", name=prefix).json()["id"]
    items = [{"department_id": department, "name": f"{prefix} {n}"} for n in range(100)]
    items[41]["department_id"] = 0
    told = post(service, body(*items), "/employees")
    assert statuses(told) == [201] * 41 + [422] + [201] * 58
    assert told[41]["errors"] == [{"pointer": "#/department_id", "detail": "does not exist"}]
    service.sql("ALTER TABLE departments ADD CONSTRAINT few CHECK (name NOT LIKE '%%7') NOT VALID")
    try:
        told = post(service, body(*names(new(), 20)))
    finally:
        service.sql("ALTER TABLE departments DROP CONSTRAINT few")
    assert statuses(told) == [201] * 7 + [422] + [201] * 9 + [422] + [201] * 2


def test_duplicates_are_told_and_refused_where_that_is_asked(service: Service) -> None:
    one, other = new(), new()
    service.sql("INSERT INTO departments (name) VALUES (%s), (%s)", one, one)
    content = body({"name": one}, {"name": other}, {"name": other})
    told = post(service, content, Prefer="handling=strict")
    assert statuses(told) == [412, 201, 200]
    assert [each["duplicates"] for each in told] == [2, 1, 1]


def test_each_line_is_answered_before_the_next_is_sent(service: Service) -> None:
    """The client sends a line only when it has read the answer to the one before."""
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(
            b"POST /departments HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/x-ndjson; charset=utf-8\r\n\r\n"
        )
        read = connection.makefile("rb")
        for number in range(5):
            connection.sendall(chunked(body({"name": f"{new()} {number}"})))
            assert next_answer(read)["status"] == 201
        connection.sendall(b"0\r\n\r\n")
        assert read.readline() == b"\r\n"
        assert read.readline() == b"0\r\n"


@given(
    lines=st.lists(st.integers(0, 9), max_size=30),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=10),
)
def test_it_is_the_same_however_it_is_cut(
    shared_service: Service, lines: list[int], cuts: list[int]
) -> None:
    prefix = new()
    content = body(*({"name": f"{prefix} {n}"} for n in lines))

    def pieces() -> Iterator[bytes]:
        at = 0
        for size in cycle(cuts):
            if at >= len(content):
                return
            yield content[at : at + size]
            at += size

    told = post(shared_service, pieces())
    assert [each["row"]["name"] for each in told] == [f"{prefix} {n}" for n in lines]
    assert sorted(statuses(told)) == [200] * (len(lines) - len({*lines})) + [201] * len({*lines})


def test_clients_that_race_make_one_row_for_a_key(service: Service) -> None:
    prefix = new()
    items = names(prefix, 300)

    def client(number: int) -> list[dict[str, Any]]:
        turned = items[number * 50 :] + items[: number * 50]
        with service.client() as http:
            answer = http.post("/departments", content=body(*turned), headers=LINES)
            return [json.loads(line) for line in answer.content.splitlines()]

    with ThreadPoolExecutor(CLIENTS) as clients:
        told = [each for answer in clients.map(client, range(CLIENTS)) for each in answer]
    assert sorted(statuses(told)) == [200] * 300 * (CLIENTS - 1) + [201] * 300
    assert len({each["row"]["id"] for each in told}) == count(service, prefix) == 300


def test_a_long_body_takes_little_memory_and_a_slow_reader_slows_itself(service: Service) -> None:
    """The client sends on and on and reads nothing, until the service reads no more."""
    worker = psutil.Process(service.process.pid)
    before = worker.memory_info().rss
    prefix = new()
    stopped = threading.Event()
    sent = 0
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(LINES_HEAD)
        connection.settimeout(2)
        chunk = chunked(body({"name": f"{prefix} {'x' * 200}"}) * 20)
        try:
            while sent < 2**28:
                sent += connection.send(chunk)
        except TimeoutError:
            stopped.set()
        assert stopped.is_set(), "it has read 256 MB"
        assert worker.memory_info().rss - before < 64 * 2**20
        assert service.post("/departments", name=new()).status_code == 201


def test_a_line_that_does_not_end_takes_little_memory(service: Service) -> None:
    worker = psutil.Process(service.process.pid)
    before = worker.memory_info().rss
    with connect(service) as connection:
        connection.sendall(LINES_HEAD)
        for _ in range(2**11):  # makes 128 MB
            connection.sendall(chunked(b"x" * 2**16))
        assert worker.memory_info().rss - before < 64 * 2**20
        connection.sendall(chunked(b"\n" + body({"name": new()})))
        read = connection.makefile("rb")
        assert statuses([next_answer(read), next_answer(read)]) == [413, 201]


def test_only_so_many_bodies_are_open_at_once(database: str) -> None:
    with serving(DATABASE_URL=database) as service:

        def one_more() -> int:
            content = body({"name": new()})
            return service.http.post("/departments", content=content, headers=LINES).status_code

        with ExitStack() as stack:
            for _ in range(REQUESTS):
                connection = stack.enter_context(connect(service))
                connection.sendall(LINES_HEAD + chunked(body({"name": new()})))
                assert next_answer(connection.makefile("rb"))["status"] == 201
            assert one_more() == 503
        until(lambda: one_more() == 200)


def test_what_was_answered_is_committed_when_the_client_goes(service: Service) -> None:
    prefix = new()
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(LINES_HEAD)
        connection.sendall(chunked(body(*names(prefix, 100))))
        read = connection.makefile("rb")
        seen = sum(b'"status":201' in read.readline() for _ in range(100))
    assert 0 < seen <= count(service, prefix)
    until(lambda: not service.sql(OPEN))
    told = post(service, body(*names(prefix, 100)))
    assert {*statuses(told)} <= {200, 201}
    assert count(service, prefix) == 100


OPEN = "SELECT FROM pg_stat_activity WHERE application_name = 'onerow' AND xact_start IS NOT NULL"


def test_a_database_that_goes_away_ends_the_answer_with_503(
    new_database: Callable[[], str],
) -> None:
    database = new_database()
    with serving(DATABASE_URL=database, RETRY_DEADLINE="1") as service:
        service.connections_break = True
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("ALTER TABLE departments RENAME TO elsewhere")
            told = post(service, body(*names(new(), 5000)))
            connection.execute("ALTER TABLE elsewhere RENAME TO departments")
        assert 0 < len(told) < 5000
        assert {*statuses(told)} == {503}
        assert statuses(post(service, body({"name": new()}))) == [201]


def test_a_fault_of_the_server_is_the_last_answer(database: str) -> None:
    with serving(DATABASE_URL=database, RETRY_DEADLINE="60") as service:
        service.connections_break = True  # those of the transactions that are cut short
        full = "IF NEW.name LIKE '%% 41' THEN RAISE disk_full; END IF; RETURN NEW;"
        make_trigger(database, "departments", full)
        told = post(service, body(*names(new(), 300)))
        assert statuses(told) == [201] * 41 + [503]


@pytest.mark.long
def test_there_is_time_for_the_halves_of_what_conflicts_again_and_again(database: str) -> None:
    # A half takes longer than the last pause, which may end that much before the deadline.
    sql(
        database,
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT count(*) FROM made) > 10 THEN RAISE serialization_failure; END IF;"
        " PERFORM pg_sleep(0.3); RETURN NULL; END $$;"
        "CREATE TRIGGER meddle AFTER INSERT ON departments REFERENCING NEW TABLE AS made"
        " EXECUTE FUNCTION meddle()",
    )
    with serving(DATABASE_URL=database, RETRY_DEADLINE="12") as service:
        assert statuses(post(service, body(*names(new(), 20)))) == [201] * 20


def test_lines_wait_where_other_requests_are_refused(database: str) -> None:
    settings = {"POOL_SIZE": "1", "POOL_QUEUE": "1", "RETRY_DEADLINE": "3600"}
    with (
        serving(DATABASE_URL=database, **settings) as service,
        psycopg.connect(database) as blocker,
        ThreadPoolExecutor(4) as threads,
    ):
        assert statuses(post(service, body({"name": "before"}))) == [201]
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        posts = [threads.submit(service.post, "/departments", name="Ada") for _ in range(3)]
        # One POST has the connection and waits for the table; another waits for the connection.
        full = 'onerow_unavailable_total{reason="queue_full"} 1.0'
        until(lambda: full in service.http.get("/metrics").text)
        lines = threads.submit(post, service, body({"name": "behind"}))
        # A refusal is told after a second. In that second there is no place for the line either.
        assert next(as_completed(posts, LIMIT)).result().status_code == 503
        blocker.rollback()
        assert statuses(lines.result()) == [201]
        assert sorted(each.result().status_code for each in posts) == [200, 201, 503]


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Content-Encoding": "gzip"}, "/departments", 415),
        ({}, "/nowhere", 404),
        ({}, "/departments/1", 405),
        ({"Origin": "http://elsewhere"}, "/departments", 403),
    ],
)
def test_what_is_refused_is_not_read(
    service: Service, headers: dict[str, str], path: str, status: int
) -> None:
    answer = service.http.post(path, content=body({"name": new()}), headers={**LINES, **headers})
    assert answer.status_code == status
    assert service.post("/departments", name=new()).status_code == 201


@pytest.mark.parametrize(
    ("chunk", "status"),
    [
        (b"zz\r\n", 400),
        (b"2\r\n{}{}\r\n", 400),
        (2 * (b"1;a=%b\r\n \r\n" % (b"x" * 10_000)), 413),
        (b"1;a=%b\r\n \r\n" % (b"x" * 20_000), 431),
    ],
)
def test_a_malformed_chunk_before_the_answer_begins_is_answered(
    service: Service, chunk: bytes, status: int
) -> None:
    """What is behind a good line may come before or behind the answer to that line."""
    prefix = new()
    blank = b"1\r\n\n\r\n"
    for before in (b"", blank):
        with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
            connection.sendall(LINES_HEAD + before)
            if before:  # it has been handed to the application when another request is answered
                assert service.http.get("/live").status_code == 200
            connection.sendall(chunk)
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert answer.count(b"HTTP/1.1") == 1
        assert b"application/problem+json" in answer
        assert b"connection: close" in answer
    line = body({"name": prefix})
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(LINES_HEAD + chunked(line))
        until(lambda: count(service, prefix) == 1)
        with suppress(ConnectionResetError):
            connection.sendall(chunk)
            while connection.recv(65536):
                pass
    # The row of the good line stays, and the service goes on.
    assert count(service, prefix) == 1
    assert statuses(post(service, line)) == [200]


def test_a_second_content_type_does_not_lift_the_bound(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(
            b"POST /departments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Type: application/x-ndjson\r\nContent-Length: 9999999\r\n\r\n"
        )
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 400 ")


def test_a_refusal_says_that_the_connection_closes(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(
            b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: application/x-ndjson\r\n\r\n"
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nconnection: close\r\n" in answer


def test_lines_behind_another_request_are_read(service: Service) -> None:
    """They arrive while the answer to the other one is due, more of them than are kept."""
    prefix = new()
    lines = body(*names(prefix, 3000))
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        one = body({"name": prefix})
        connection.sendall(
            b"POST /departments HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: application/json\r\n\r\n%b"
            % (len(one), one)
            + b"POST /departments HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: application/x-ndjson\r\n\r\n" % len(lines)
        )
        sending = threading.Thread(target=connection.sendall, args=[lines])
        sending.start()
        read = connection.makefile("rb")
        answered = 0
        while (line := read.readline()) not in (b"", b"0\r\n"):
            answered += line.startswith(b'{"status":201')
        sending.join()
    assert answered == 3000


def test_a_body_that_is_cut_off_is_not_taken_for_whole(service: Service) -> None:
    prefix = new()
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(
            b"POST /departments HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: application/x-ndjson\r\n\r\n" + body({"name": prefix})
        )
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert not answer.endswith(b"0\r\n\r\n")
    assert psutil.pid_exists(service.process.pid)
    assert service.post("/departments", name=new()).status_code == 201
