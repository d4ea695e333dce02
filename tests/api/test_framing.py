"""A request ends where its sender says, or it is refused and not begun (RFC 9110 and 9112).

Each case is sent on one connection, in one piece and byte by byte, to the service itself and
through HAProxy and nginx as one usually sets them up. A GET follows that asks for the connection's
end. It is answered where the service agrees with the client on where the request ended, and not
answered where the service refused the request and closed.
"""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count

import psycopg
import pytest
from starlette.exceptions import HTTPException

from tests.api.framing import CASES, LAST, NAMED, WAYS, chunked, get, post
from tests.support.haproxy import HAPROXY, balancing
from tests.support.nginx import NGINX, proxying
from tests.support.service import LIMIT, Service, serving, sql, until
from web.head import Request
from web.request import Requests

numbers = count(1)

# The statuses in CASES were seen with these versions of the proxies; others may answer otherwise.
KNOWN = {"haproxy": (HAPROXY, "-v", "version 2.6."), "nginx": (NGINX, "-v", "nginx/1.22.")}


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    with serving(ALLOWED_HOSTS="onerow", DATABASE_URL=new_database()) as service:
        yield service


@pytest.fixture(scope="module")
def ports(service: Service) -> Iterator[dict[str, int]]:
    """The port at which each way begins."""
    with ExitStack() as stack:
        ports = {"direct": service.port}
        if HAPROXY is not None:
            haproxy = stack.enter_context(balancing([f"127.0.0.1:{service.port}"]))
            until(lambda: haproxy.up() == 1)
            ports["haproxy"] = haproxy.port
        if NGINX is not None:
            ports["nginx"] = stack.enter_context(proxying(service.port))
        yield ports


@pytest.fixture(scope="module")
def rows(service: Service) -> Iterator[psycopg.Connection]:
    with psycopg.connect(service.database, autocommit=True) as connection:
        yield connection


def is_known(way: str) -> bool:
    command, option, version = KNOWN[way]
    told = subprocess.run([str(command), option], capture_output=True, text=True)
    return version in told.stdout + told.stderr


def pieces(data: bytes) -> list[bytes]:
    return [bytes([each]) for each in data]


def exchange(port: int, sent: list[bytes], answers: int) -> bytes:
    """Send the pieces; return what comes until the other side closes.

    Where it does not close, but waits for more, `answers` says how many answers to read.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The other side may refuse and close before all is sent.
        with suppress(ConnectionResetError, BrokenPipeError):
            for piece in sent:
                connection.sendall(piece)
        with suppress(ConnectionResetError):
            while answers < 0 or len(statuses(received)) < answers:
                data = connection.recv(65536)
                if not data:
                    break
                received += data
    return received


def statuses(received: bytes) -> list[str]:
    """Return the statuses of the answers, without 100."""
    found = re.findall(rb"HTTP/1\.[01] (\d+) ", received)
    return [status.decode() for status in found if status != b"100"]


# `make test` goes through one proxy, and `make proof` through the other.
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.long if way == "nginx" else []) for way in WAYS]
)
@pytest.mark.parametrize("case", CASES)
def test_a_request_is_read_in_one_way_or_refused(
    ports: dict[str, int], rows: psycopg.Connection, way: str, case: str
) -> None:
    if way not in ports:
        pytest.skip(f"{way} is not installed")
    told, data = CASES[case]
    expected = dict(zip(WAYS, told.split(" / ") if "/" in told else 3 * [told], strict=True))[way]
    waits = expected.endswith("...")
    wanted = [re.findall(r"\d+", each) for each in expected.split(" or ")]
    for cut in (lambda whole: [whole], pieces):
        name = f"{next(numbers):04}"
        inserted = rows.execute("INSERT INTO departments (name) VALUES (%s) RETURNING id", [case])
        ((id_,),) = inserted.fetchall()
        sent = data.replace(b"NAME", name.encode()).replace(b"ID", str(id_).encode()) + LAST
        received = exchange(ports[way], cut(sent), len(wanted[0]) if waits else -1)
        seen = statuses(received)
        if way == "direct" or is_known(way):
            assert seen in wanted
        if way == "direct" and int(seen[0]) >= 400:
            assert b"content-type: application/problem+json" in received
            assert b"x-request-id: " in received
        # A row is made or deleted only where the answer says so, never by what is inside a body.
        found = rows.execute(
            "SELECT name FROM departments WHERE name = ANY(%s) OR id = %s",
            [[name, "SMUGGLED"], id_],
        ).fetchall()
        made = [(name,)] if "201" in seen else []
        kept = [] if "204" in seen else [(case,)]
        assert sorted(found) == sorted(made + kept)


def outcome(requests: Requests, sent: list[bytes]) -> list[object]:
    """Return what the parser makes of these pieces, given to it one after the other."""
    made: list[object] = []
    try:
        for piece in sent:
            requests.data += piece
            while isinstance(came := next(requests), Request):
                made.append(came)
    except HTTPException as error:
        made.append(error.status_code)
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_request_is_read_the_same_however_it_is_cut(case: str) -> None:
    data = CASES[case][1] + LAST
    whole = outcome(Requests(16384), [data])
    assert whole
    assert outcome(Requests(16384), pieces(data)) == whole
    for at in range(len(data)):
        assert outcome(Requests(16384), [data[:at], data[at:]]) == whole


GET = LAST.replace(b"Connection: close\r\n", b"")
LONG = {
    "empty lines": b"\r\n" * 10_000 + GET,
    "as many empty lines as there may be": b"\r\n" * 8_192 + GET,
    "empty lines with too long a head": b"\r\n" * 8_000 + GET,
    "empty lines with a head": b"\r\n" * 7_000 + GET,
    "a head": GET[:-2] + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    "a head of the most bytes": GET[:-2] + b"X: " + b"a" * (16_384 - len(GET) - 5) + b"\r\n\r\n",
    "a head of a byte more": GET[:-2] + b"X: " + b"a" * (16_385 - len(GET) - 5) + b"\r\n\r\n",
    "a head with a fault behind its bound": GET[:-2] + b"X: " + b"a" * 17_000 + b"\0\r\n\r\n",
    "many headers": GET[:-2] + b"X: a\r\n" * 3_000 + b"\r\n",
    "an extension of a chunk": chunked(f"f;{'a' * 17_000}\r\n" + '{"name":"NAME"}\r\n'),
    "a trailer of many bytes": chunked(NAMED, trailers=f"X: {'a' * 17_000}\r\n"),
}


@pytest.mark.parametrize("case", LONG)
def test_a_long_request_is_read_the_same_however_it_is_cut(case: str) -> None:
    data = LONG[case]
    whole = outcome(Requests(16384), [data])
    for size in (1, 2, 1_000, 16_383, 16_384, 16_385):
        cut = [data[at : at + size] for at in range(0, len(data), size)]
        assert outcome(Requests(16384), cut) == whole, size


# Clients that close their side and wait for the answers

FINISHED = {
    "a POST": (post(), "201"),
    "two POSTs": (post() + post(), "201 200"),
    "a POST and half of the next": (post() + post()[:-5], "201"),
    "a POST and half of a head": (post() + b"GET /li", "201"),
    "a POST and what is refused": (post() + b"This is not HTTP.\r\n\r\n", "201 400"),
    "half a POST": (post()[:-5], ""),
    "half a head": (b"GET /li", ""),
    "nothing": (b"", ""),
    "a POST that is the last": (post("Connection: close"), "201"),
}


@pytest.mark.parametrize("case", FINISHED)
def test_a_client_that_sends_no_more_gets_the_answers(
    service: Service, rows: psycopg.Connection, case: str
) -> None:
    sent, wanted = FINISHED[case]
    name = f"{next(numbers):04}"
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(sent.replace(b"NAME", name.encode()))
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
    assert statuses(received) == wanted.split()
    found = rows.execute("SELECT FROM departments WHERE name = %s", [name]).fetchall()
    assert len(found) == ("201" in wanted)


def test_what_comes_behind_the_last_request_costs_no_answer(service: Service) -> None:
    """Bytes left unread would make the kernel reset the connection before the answer is read."""
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(LAST)
        until(lambda: b" 200 " in connection.recv(65536, socket.MSG_PEEK))
        connection.sendall(b"a" * 100_000)
        connection.sendall(b"a" * 100_000)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
    assert statuses(received) == ["200"]


# A refusal of HEAD has no body

HEADS = {
    "a Host that is malformed": (get("HEAD /live HTTP/1.1", host="a b"), "400"),
    "another Host": (get("HEAD /live HTTP/1.1", host="elsewhere"), "421"),
    "a broken header": (get("HEAD /live HTTP/1.1", "X"), "400"),
    "a large body": (get("HEAD /live HTTP/1.1", "Content-Length: 9999999"), "413"),
    "a large head": (get("HEAD /live HTTP/1.1", "X: " + "a" * 20_000), "431"),
    "an expectation": (get("HEAD /live HTTP/1.1", "Expect: 200-ok"), "417"),
    "a coding": (get("HEAD /live HTTP/1.1", "Transfer-Encoding: foo, chunked"), "501"),
    "behind an answer": (get("HEAD /live HTTP/1.1") + get("HEAD /live HTTP/1.1", "X"), "200 400"),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_refusal_of_head_has_no_body(service: Service, case: str) -> None:
    sent, wanted = HEADS[case]
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
    assert statuses(received) == wanted.split()
    assert b"{" not in received


# What a trailer says

TRAILERS = {
    "Content-Type: application/json": 415,
    "Prefer: handling=strict": 200,
    "X-Request-Id: forged": 201,
    "Content-Encoding: gzip": 201,
    "Connection: close": 201,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("trailer", TRAILERS)
def test_a_trailer_has_no_effect(
    ports: dict[str, int], rows: psycopg.Connection, way: str, trailer: str
) -> None:
    if way not in ports:
        pytest.skip(f"{way} is not installed")
    status = TRAILERS[trailer]
    name = f"{next(numbers):04}"
    if status == 200:
        rows.execute("INSERT INTO departments (name) VALUES (%s), (%s)", [name, name])
    sent = chunked(NAMED, trailers=trailer + "\r\n").replace(b"NAME", name.encode())
    if status == 415:
        sent = sent.replace(b"Content-Type: application/json\r\n", b"", 1)
    received = exchange(ports[way], [sent + LAST], -1)
    assert statuses(received) == [str(status), "200"]
    assert b"forged" not in received


def test_a_token_in_a_trailer_does_not_count(database: str) -> None:
    with serving(ALLOWED_HOSTS="onerow", DATABASE_URL=database, API_TOKEN="token") as service:
        sent = chunked(NAMED, trailers="Authorization: Bearer token\r\n")
        assert statuses(exchange(service.port, [sent + LAST], -1)) == ["401", "200"]
    assert sql(database, "SELECT FROM departments") == []


# 100 Continue


def answer(connection: socket.socket) -> bytes:
    """Return one head, with what came behind it."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        assert data, received
        received += data
    return received


def test_a_client_that_waits_for_100_continue_gets_it_once(service: Service) -> None:
    body = b'{"name":"patient"}'
    head = post("Expect: 100-Continue", body=body).removesuffix(body)
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        for status in (b"201", b"200"):
            connection.sendall(head)
            assert answer(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
            assert answer(connection).startswith(b"HTTP/1.1 %b " % status)


NO_CONTINUE = {
    "HTTP/1.0": (post("Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0", 1), None),
    "a body that is too large": (
        post("Expect: 100-continue", "Content-Length: 1048577", length=False, body=b""),
        b"413",
    ),
    **{
        f"a large body of what is no array: {line} {media}": (
            get(
                f"{line} HTTP/1.1",
                "Content-Length: 16385",
                "Expect: 100-continue",
                f"Content-Type: {media}",
            ),
            b"413",
        )
        for line, media in (
            ("GET /departments", "application/json"),
            ("DELETE /departments/1", "application/json"),
            ("PUT /departments/1", "application/json"),
            ("POST /departments", "text/plain"),
            ("DELETE /departments/1", "application/x-ndjson"),
        )
    },
    "no body": (get("GET /live HTTP/1.1", "Expect: 100-continue"), b"200"),
    "what is refused": (post("Expect: 100-continue", "Transfer-Encoding: foo", body=b""), b"400"),
}


@pytest.mark.parametrize("case", NO_CONTINUE)
def test_100_continue_is_for_nobody_else(service: Service, case: str) -> None:
    sent, status = NO_CONTINUE[case]
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        # The body comes once another request was answered, so that the service has seen the head.
        if status is None:
            head, _, body = sent.partition(b"\r\n\r\n")
            connection.sendall(head + b"\r\n\r\n")
            assert service.http.get("/live").status_code == 200
            connection.sendall(body.replace(b"NAME", b"old!"))
            assert answer(connection).startswith(b"HTTP/1.1 201 ")
        else:
            connection.sendall(sent)
            assert answer(connection).startswith(b"HTTP/1.1 %b " % status)


# Bodies with a Content-Encoding


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x", "gzip, identity"])
def test_a_compressed_body_is_refused(service: Service, coding: str) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    refused = service.http.post("/departments", content=b'{"name":"as it is"}', headers=headers)
    assert refused.status_code == 415
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_a_body_that_says_that_it_is_not_compressed_is_taken(service: Service, coding: str) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    taken = service.http.post("/departments", content=b'{"name":"as it is"}', headers=headers)
    assert taken.status_code in (200, 201)


# Clients that offer HTTP/2


@pytest.mark.parametrize("way", WAYS)
def test_curl_with_http2(ports: dict[str, int], rows: psycopg.Connection, way: str) -> None:
    if shutil.which("curl") is None or way not in ports:
        pytest.skip("curl, or what is in between, is not installed")
    for body in (f'{{"name":"by {way}"}}', f'{{"name":"by {way}","x":"{"a" * 8000}"}}'):
        done = subprocess.run(
            [
                *("curl", "--http2", "--silent", "--header", "Content-Type: application/json"),
                *("--data-binary", "@-", "--write-out", "%{http_code} %{http_version}"),
                *("--output", "/dev/null", f"http://127.0.0.1:{ports[way]}/departments"),
            ],
            input=body,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.stdout == ("422 1.1" if "x" in json.loads(body) else "201 1.1")
    found = rows.execute("SELECT name FROM departments WHERE name LIKE 'by %'").fetchall()
    assert (f"by {way}",) in found
