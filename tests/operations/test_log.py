"""The log in text and in JSON, and the trace that a request says it is part of."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.documents import blocks, section
from tests.support.service import Service, serving, until
from web.log import JsonFormatter

SECRET = "hunter2"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"


def objects(service: Service) -> list[dict[str, Any]]:
    """The log's records, each an object on a line."""
    text = service.log.read_text()
    assert text.isascii()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def said(message: str, *arguments: object, error: BaseException | None = None) -> dict[str, Any]:
    """Return what the log would have of a record."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("a.logger", logging.ERROR, "", 0, message, arguments, exc_info)
    line = JsonFormatter().format(record)
    assert line.isprintable()
    assert line.isascii()
    told: dict[str, Any] = json.loads(line)
    assert datetime.fromisoformat(told.pop("time")).utcoffset() == UTC.utcoffset(None)
    return told


# Records


def test_a_record_is_an_object() -> None:
    assert said("%s and %d", "é 漢", 1) == {
        "level": "ERROR",
        "logger": "a.logger",
        "message": "é 漢 and 1",
    }


def test_what_a_terminal_would_obey_is_escaped_in_what_is_read_from_json_too() -> None:
    told = said("%s", "\n{\x1b[31m\u2028\x7f\ud800")
    assert told["message"] == r"\n{\x1b[31m\u2028\x7f\ud800"


def test_of_an_exception_there_is_all_but_the_text() -> None:
    def fails() -> None:
        try:
            error = psycopg.errors.UniqueViolation(f"Key (name)=({SECRET})")
            error.sqlstate = "23505"
            raise error
        except psycopg.Error:
            raise KeyError(SECRET)  # noqa: B904

    try:
        fails()
    except KeyError as error:
        told = said("Failed", error=error)
    assert SECRET not in str(told)
    lines = told["traceback"].splitlines()
    assert lines.count("Traceback (most recent call last):") == 2
    assert "psycopg.errors.UniqueViolation, SQLSTATE 23505" in lines
    assert lines[-1] == "builtins.KeyError"


# A service


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_each_line_is_an_object(workers: str, database: str) -> None:
    with serving(DATABASE_URL=database, LOG_FORMAT="json", WORKERS=workers) as service:
        until(lambda: service.log.read_text().count(" begins") == int(workers))
        assert service.stop() == 0
        told = [(each["level"], each["logger"], each["message"]) for each in objects(service)]
    for does in ("begins", "ends"):
        found = [each for each in told if re.fullmatch(rf"worker \d+ {does}", each[2])]
        assert len(found) == int(workers)
        assert {each[:2] for each in found} == {("INFO", "onerow")}


def test_a_request_is_an_object_as_printed(database: str) -> None:
    (printed,) = map(json.loads, blocks(section("docs/operating.md#the-log"), "json"))
    with serving(DATABASE_URL=database, LOG_FORMAT="json", LOG_REQUESTS="1") as service:
        headers = {"traceparent": VALID, "X-Request-Id": printed["request_id"]}
        service.http.post("/departments", json={"name": SECRET}, headers=headers)
        service.http.get("/departments?name=x", headers={"traceparent": "nonsense"})
        service.stop()
        post, get = [each for each in objects(service) if each["logger"] == "onerow.access"]
    for varies in ("time", "ms"):
        assert type(post[varies]) is type(printed[varies])
        assert len(str(post["time"])) == len(printed["time"])
    text = re.sub(r"[\d.]+(?= ms)", str(post["ms"]), printed["message"])
    assert post == printed | {"time": post["time"], "ms": post["ms"], "message": text}
    assert list(post) == list(printed)
    assert list(get) == [name for name in printed if name != "trace_id"]
    assert (get["method"], get["path"], get["status"]) == ("GET", "/departments", 200)


def test_a_request_that_is_given_up_has_its_fields(database: str) -> None:
    settings = {"LOG_FORMAT": "json", "RETRY_DEADLINE": "0.4"}
    with serving(DATABASE_URL=database, **settings) as service:
        service.sql("ALTER TABLE departments RENAME TO elsewhere")
        headers = {"X-Request-Id": "given-1", "traceparent": VALID}
        answer = service.http.post("/departments", json={"name": SECRET}, headers=headers)
        assert answer.status_code == 503
        (told,) = [each for each in objects(service) if "given up" in each["message"]]
    fields = (told["level"], told["method"], told["path"], told["request_id"])
    assert fields == ("WARNING", "POST", "/departments", "given-1")
    assert TRACE not in str(told)


def test_a_defect_has_its_traceback_on_the_same_line(database: str) -> None:
    with serving(DATABASE_URL=database, LOG_FORMAT="json") as service:
        service.sql(
            # A type that no answer has a form for.
            "ALTER TABLE departments ALTER created_at DROP DEFAULT,"
            " ALTER created_at TYPE inet USING '127.0.0.1'::inet,"
            " ALTER created_at SET DEFAULT '127.0.0.1'::inet"
        )
        failed = httpx.post(f"{service.url}/departments", json={"name": SECRET})  # then closed
        assert failed.status_code == 500
        service.stop()
        (told,) = [each for each in objects(service) if each["level"] == "ERROR"]
    assert told["message"] == "a defect of the service"
    assert told["traceback"].startswith("Traceback (most recent call last):\n  File ")
    assert told["traceback"].splitlines()[-1] == "builtins.TypeError"
    assert SECRET not in str(told)


# Traces of others


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    with serving(DATABASE_URL=new_database(), LOG_REQUESTS="1") as service:
        yield service


def line_of(service: Service, *given: str) -> str:
    """Ask with these headers, and return the request's line without its time."""
    id_ = f"asked-{len(service.log.read_text())}"
    headers = [("X-Request-Id", id_), *(("traceparent", each) for each in given)]
    answer = service.http.get("/live", headers=headers)
    assert answer.status_code == 200
    assert TRACE not in str(answer.headers)
    until(lambda: f"id {id_}" in service.log.read_text())
    (line,) = [each for each in service.log.read_text().splitlines() if f"id {id_}" in each]
    known = re.fullmatch(
        rf"\S+ \S+ INFO onerow\.access: GET /live 200, \d+\.\d ms, id {id_}(.*)", line
    )
    assert known, line
    return known[1]


@pytest.mark.parametrize(
    "given",
    [
        VALID,
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-ff",
        f"01-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what the future will be like",
        f"fe-{TRACE}-{PARENT}-01-",
    ],
)
def test_a_trace_is_in_the_line_of_its_request(given: str, service: Service) -> None:
    assert line_of(service, given) == f", trace {TRACE}"


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("",),
        ("nonsense",),
        (VALID.upper(),),
        (f"ff-{TRACE}-{PARENT}-01",),
        (f"0g-{TRACE}-{PARENT}-01",),
        (f"00-{'0' * 32}-{PARENT}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"00-{TRACE[1:]}-{PARENT}-01",),
        (f"00-{TRACE}0-{PARENT}-01",),
        (f"00-{TRACE}-{PARENT}",),
        (f"00-{TRACE}-{PARENT}-0",),
        (f"00-{TRACE}-{PARENT}-011",),
        (f"{VALID}-",),
        (f"{VALID}-more",),
        (f"cc-{TRACE}-{PARENT}-01.more",),
        (f"{VALID},{VALID}",),
        (f"00-{TRACE}\t-{PARENT}-01",),
        (VALID, VALID),
        (VALID, "nonsense"),
    ],
    ids=str,
)
def test_a_trace_that_is_not_valid_is_ignored(given: tuple[str, ...], service: Service) -> None:
    assert line_of(service, *given) == ""


def test_nothing_else_is_told_of_it(service: Service) -> None:
    headers = {"traceparent": VALID, "tracestate": f"vendor={SECRET}", "baggage": f"key={SECRET}"}
    answer = service.http.post("/departments", json={"name": "Traced"}, headers=headers)
    assert answer.status_code in (200, 201)
    assert TRACE not in answer.text
    log = service.log.read_text()
    assert SECRET not in log
    assert PARENT not in log
    statements = service.sql("SELECT string_agg(query, ' ') FROM pg_stat_activity")
    assert TRACE not in str(statements)
