"""No error and no log shows what is secret, sent or stored, and nobody can forge a log line."""

import logging
import os
import re
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from db.texts import printable
from tests.support.roles import make_superuser
from tests.support.service import LIMIT, ROOT, Service, environment, serving, sql, until
from web.log import FORMAT, Formatter

pytestmark = pytest.mark.alone

# This is part of every token, password, name, body, path and header of these tests.
SECRET = "hunter2"
TOKEN = f"{SECRET}-token"
LOCKED = "onerow_test_locked"
FORGED = "2026-01-01 00:00:00,000 ERROR onerow: forged"

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: .+|    .+")


def assert_clean(text: str) -> None:
    """Assert that the text of a log holds no secret and no forged line."""
    assert SECRET not in text
    for line in text.split("\n")[:-1]:
        assert LINE.fullmatch(line), line
        assert line.isprintable(), line
        assert not line.startswith(FORGED)


# Log records


@given(st.text())
def test_any_text_is_printed_on_one_line(text: str) -> None:
    assert printable(text).isprintable()
    assert len(f"a{printable(text)}b".splitlines()) == 1
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("Ada é 漢 \U0001f600", "Ada é 漢 \U0001f600"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x1b[2J\x07\x9b", r"\x1b[2J\x07\x9b"),
        ("\x0b\x0c\x1c\x85\u2028\u2029", r"\x0b\x0c\x1c\x85\u2028\u2029"),
        ("\u202e\u200b\ufeff\ud800", r"\u202e\u200b\ufeff\ud800"),
    ],
)
def test_what_is_printed(text: str, printed: str) -> None:
    assert printable(text) == printed


def record(message: str, *arguments: object, error: BaseException | None = None) -> str:
    """Return the log's text for an exception."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    given = logging.LogRecord("a.logger", logging.ERROR, "", 0, message, arguments, exc_info)
    return Formatter(FORMAT).format(given)


def test_a_record_is_one_line() -> None:
    said = record("%s in %r", f"\n{FORGED}\x1b[31m", "\u2028")
    assert said.endswith(rf" ERROR a.logger: \n{FORGED}\x1b[31m in '\u2028'")
    assert_clean(said + "\n")


def test_of_an_exception_the_log_has_all_but_the_text() -> None:
    def fails() -> None:
        try:
            sql_error = psycopg.errors.UniqueViolation(f"Key (name)=({SECRET})\n{FORGED}")
            sql_error.sqlstate = "23505"
            raise sql_error
        except psycopg.Error:
            raise KeyError(f"{SECRET}\n{FORGED}")  # noqa: B904

    try:
        fails()
    except KeyError as error:
        said = record("Failed", error=error)
    assert_clean(said + "\n")
    lines = said.splitlines()
    assert lines[0].endswith("a.logger: Failed")
    assert lines.count("    Traceback (most recent call last):") == 2
    assert "    psycopg.errors.UniqueViolation, SQLSTATE 23505" in lines
    assert lines[-1] == "    builtins.KeyError"
    assert f'      File "{__file__}", line ' in said


@pytest.mark.parametrize("suppressed", [False, True])
def test_a_chain_of_exceptions_ends(suppressed: bool) -> None:
    error, cause = ValueError(), TypeError()
    error.__cause__, cause.__context__ = cause, error
    if suppressed:
        error.__cause__, error.__context__ = None, cause
        error.__suppress_context__ = True
    names = re.findall(r"builtins\.\w+", record("Failed", error=error))
    assert names == ["builtins.ValueError"] if suppressed else ["builtins.TypeError", *names[1:]]


# A service in which every secret and every input holds SECRET

TALKATIVE = """
CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE WARNING '%%', NEW.name;
    IF NEW.name ~ '^\\w{5} ' THEN
        RAISE EXCEPTION '%%', NEW.name
            USING ERRCODE = left(NEW.name, 5), DETAIL = NEW.name, HINT = NEW.name;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER talk BEFORE INSERT ON departments FOR EACH ROW EXECUTE FUNCTION talk();
"""

STATUSES = {
    "22P02": 422,  # invalid_text_representation
    "23505": 422,
    "23514": 422,  # check_violation
    "P0001": 422,  # raise_exception
    "ZZ001": 422,  # a state that a trigger has made up
    "42883": 503,  # undefined_function, as a broken trigger raises it
    "XX000": 503,  # internal_error
    "0A000": 503,  # feature_not_supported
    "25006": 503,  # read_only_sql_transaction
    "40001": 503,
    "40P01": 503,
    "42501": 503,  # insufficient_privilege
    "53200": 503,  # out_of_memory
    "57014": 503,  # query_canceled
}


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    database = new_database()
    sql(database, TALKATIVE)
    url = make_superuser(database, "onerow_test_teller", SECRET)
    url = make_conninfo(url, oauth_client_secret=SECRET)
    settings = {"DATABASE_URL": url, "API_TOKEN": f"old,{TOKEN}", "RETRY_DEADLINE": "1"}
    with serving(**settings) as service:
        # The service closes the connection behind a 500, so each request gets one of its own.
        service.http.headers.update({"Authorization": f"Bearer {TOKEN}", "Connection": "close"})
        yield service


@pytest.mark.parametrize("pipeline", ["0", "1"])
def test_what_postgresql_says_stays_inside(pipeline: str, service: Service) -> None:
    with serving(DATABASE_URL=service.database, PIPELINE=pipeline, RETRY_DEADLINE="1") as another:
        another.http.headers["Connection"] = "close"
        for sqlstate, status in STATUSES.items():
            answer = another.post("/departments", name=f"{sqlstate} {SECRET}\n{FORGED}")
            assert answer.status_code == status, sqlstate
            assert SECRET not in answer.text + str(answer.headers)
            for inside in ("SQL", "talk", "psycopg", "departments", sqlstate, ".py"):
                assert inside not in answer.text
        assert_clean(another.log.read_text())


def post(path: str, content: str | bytes, **headers: str) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **headers}
    return {"method": "POST", "url": path, "content": content, "headers": headers}


def get(path: str, **headers: str) -> dict[str, Any]:
    return {"method": "GET", "url": path, "headers": headers}


REQUESTS = {
    "a fault of the server": post("/departments", f'{{"name": "XX000 {SECRET}"}}'),
    "no JSON": post("/departments", SECRET),
    "JSON cut short": post("/departments", f'{{"name": "{SECRET}'),
    "not UTF-8": post("/departments", SECRET.encode() + b"\xff"),
    "a wrong type": post("/departments", f'{{"name": ["{SECRET}"]}}'),
    "an unknown field": post("/departments", f'{{"name": "x", "{SECRET}": "{SECRET}"}}'),
    "a long name": post("/departments", f'{{"name": "{SECRET * 99}"}}'),
    "NUL and a surrogate": post("/departments", f'{{"name": "{SECRET}\\u0000\\ud800"}}'),
    "a large body": post("/departments", SECRET * 9_999),
    "another type": post("/departments", SECRET, **{"Content-Type": f"text/{SECRET}"}),
    "no such department": post("/employees", f'{{"name": "{SECRET}", "department_id": 99}}'),
    "no such path": get(f"/{SECRET}%0A{FORGED}%1B[31m"),
    "no id": get(f"/departments/{SECRET}%0D%0A{FORGED}"),
    "no id to delete": {**get(f"/employees/{SECRET}"), "method": "DELETE"},
    "a strange method": {**get(f"/departments?{SECRET}"), "method": SECRET.upper()},
    "an unknown parameter": get(f"/departments?{SECRET}={SECRET}"),
    "a wrong parameter": get(f"/departments?limit={SECRET}"),
    "a parameter not in UTF-8": get(f"/departments?name={SECRET}%FF"),
    "no such page": get(f"/inspect/{SECRET}.json"),
    "a page's unknown parameter": get(f"/inspect/merged.json?{SECRET}=1"),
    "a page's wrong value": get(f"/inspect/employees_plan.csv?department_id={SECRET}"),
    "a page's long value": get(f"/inspect/merged.json?id={SECRET * 101}"),
    "a plan's wrong value": get(f"/inspect/employees_plan.json?department_id={SECRET}"),
    "no token": get(f"/{SECRET}", Authorization=SECRET),
    "a wrong token": get("/inspect", Authorization=f"Bearer {SECRET}"),
    "a wrong password": get(
        "/inspect", Authorization=f"Basic {b64encode(SECRET.encode()).decode()}"
    ),
}


def send(service: Service, case: str) -> httpx.Response:
    request = REQUESTS[case]
    headers = {"X-Other": SECRET, "Prefer": SECRET, **request["headers"]}
    return service.http.request(**{**request, "headers": headers})


@pytest.mark.parametrize("case", REQUESTS)
def test_no_error_repeats_what_was_sent(case: str, service: Service) -> None:
    answer = send(service, case)
    assert answer.status_code >= 400
    assert answer.headers["x-request-id"]
    assert SECRET not in (answer.text + str(answer.headers)).lower()


RAW = {
    "no HTTP": f"{SECRET}\n{FORGED}\r\n\r\n",
    "no method": f"{SECRET} /{SECRET} HTTP/1.1\r\n\r\n",
    "no header": f"GET / HTTP/1.1\r\n{SECRET}\r\n\r\n",
    "a header of two lines": f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {SECRET}\n {FORGED}\r\n\r\n",
    "a length": f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SECRET}\r\n\r\n",
    "two lengths": "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a WebSocket": f"GET /{SECRET} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {SECRET}\r\n\r\n",
}


def send_raw(service: Service, case: str) -> str:
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as caller:
        caller.sendall(RAW[case].encode())
        return caller.recv(65536).decode()


@pytest.mark.parametrize("case", RAW)
def test_no_error_repeats_what_is_hardly_http(case: str, service: Service) -> None:
    answer = send_raw(service, case)
    assert re.match(r"HTTP/1\.1 4\d\d ", answer)
    assert SECRET not in answer


def test_the_log_has_nothing_of_all_that_was_sent(service: Service) -> None:
    for case in REQUESTS:
        send(service, case)
    for case in RAW:
        send_raw(service, case)
    assert service.stop() == 0
    said = service.log.read_text()
    assert " (XX000)\n" in said
    assert_clean(said)
    assert service.process.stdout is not None
    assert SECRET not in service.line + service.process.stdout.read()


# A database that cannot be reached


@pytest.fixture(scope="module")
def locked(server: str) -> str:
    """The URL of a role that needs a password, with a wrong one."""
    sql(server, f"CREATE ROLE {LOCKED} LOGIN PASSWORD '{SECRET}, but not so'")
    url = make_conninfo(server, user=LOCKED, password=SECRET)

    def needs_it() -> bool:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError as error:
            return "password" in str(error)
        return False

    if not needs_it():
        if "TEST_DATABASE_URL" in os.environ:
            pytest.skip("this server trusts whoever comes")
        ((rules,),) = sql(server, "SHOW hba_file")
        path = Path(rules)
        path.write_text(f"local all {LOCKED} scram-sha-256\n{path.read_text()}")
        sql(server, "SELECT pg_reload_conf()")
        until(needs_it)
    return url


WHY = ["a wrong password", "nobody there", "no such database"]


@pytest.fixture
def unreachable(request: pytest.FixtureRequest, server: str, locked: str) -> str:
    if request.param == "a wrong password":
        return locked
    if request.param == "no such database":
        return make_conninfo(server, dbname=f"x\n{FORGED}\x1b[31m", password=SECRET)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"postgresql://postgres:{SECRET}@127.0.0.1:{port}/postgres"


@pytest.mark.parametrize(
    ("unreachable", "paths"),
    [
        (WHY[0], ["/ready", "/departments"]),
        (WHY[1], ["/ready", "/departments"]),
        (WHY[2], ["/inspect/departments_duplicates.json"]),  # one path, for it takes five seconds
    ],
    indirect=["unreachable"],
)
def test_a_database_that_cannot_be_reached(unreachable: str, paths: list[str]) -> None:
    with serving(DATABASE_URL=unreachable, RETRY_DEADLINE="0.3") as service:
        for path in paths:
            answer = service.http.get(path)
            assert answer.status_code == 503
            for inside in (SECRET, "127.0.0.1", LOCKED, "password", "forged"):
                assert inside not in answer.text
        until(lambda: "error connecting" in service.log.read_text())
        assert service.stop() == 0
        assert_clean(service.log.read_text())
        assert service.process.stdout is not None
        assert service.process.stdout.read() == "", "the line of the start is the only one"
        assert SECRET not in service.line


@pytest.mark.parametrize("unreachable", WHY, indirect=True)
def test_a_command_does_not_tell_the_password(unreachable: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "db", "doctor"],
        cwd=ROOT,
        env=environment(DATABASE_URL=unreachable),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
