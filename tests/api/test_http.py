"""The HTTP contract has a test for each row of its tables, through a real socket."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from db.embedded import embedded_server
from db.schema import apply_schema
from tests.support import legacy
from tests.support.service import (
    LIMIT,
    ROOT,
    Service,
    environment,
    serving,
    sql,
    temporary_data_dir,
    until,
)
from web.invisible import INVISIBLE

unique = count(1)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"name {next(unique)}"


@pytest.fixture
def service(shared_service: Service) -> Service:
    return shared_service


@pytest.fixture
def department(service: Service, name: str) -> int:
    return int(service.post("/departments", name=f"of {name}").json()["id"])


def assert_problem(response: httpx.Response, status: int, *pointers: str) -> None:
    problem = response.json()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["status"] == status
    assert problem["detail"]
    assert [error["pointer"] for error in problem.get("errors", [])] == list(pointers)
    assert all(error["detail"] for error in problem.get("errors", []))


# Creating


def test_post_creates_then_finds(service: Service, name: str) -> None:
    created = service.post("/departments", name=name)
    assert created.status_code == 201
    row = created.json()
    assert set(row) == {"id", "name", "created_at"}
    assert row["name"] == name
    assert created.headers["location"] == f"/departments/{row['id']}"
    found = service.post("/departments", name=name)
    assert found.status_code == 200
    assert found.json() == row
    assert found.headers["location"] == created.headers["location"]
    assert "duplicates" not in found.headers


def test_an_employees_key_is_department_and_name(
    service: Service, name: str, department: int
) -> None:
    other = service.post("/departments", name=f"another of {name}").json()["id"]
    first = service.post("/employees", name=name, department_id=department)
    second = service.post("/employees", name=name, department_id=other)
    again = service.post("/employees", name=name, department_id=department)
    assert [first.status_code, second.status_code, again.status_code] == [201, 201, 200]
    assert set(first.json()) == {"id", "department_id", "name", "created_at"}
    assert first.json()["department_id"] == department
    assert again.json() == first.json() != second.json()


@pytest.mark.parametrize("form", ["{}.0", "{}.00e0", "{}0e-1", "0.{}e19"])
def test_an_integer_in_other_words(service: Service, name: str, department: int, form: str) -> None:
    # For JSON Schema, and so for /openapi.json, such a number is an integer.
    id_ = form.format(f"{department:019}" if form.startswith("0.") else department)
    body = f'{{"department_id": {id_}, "name": "{name}"}}'.encode()
    created = post_raw(body)(service)
    assert created.status_code == 201
    assert created.json()["department_id"] == department


def test_an_integer_past_the_digits_of_a_float(service: Service, name: str) -> None:
    id_ = 2**53 + 1
    service.sql("INSERT INTO departments (id, name) VALUES (%s, %s)", id_, name)
    created = post_raw(f'{{"department_id": {id_}.0, "name": "{name}"}}'.encode())(service)
    assert created.json()["department_id"] == id_


def test_created_at_is_rfc_3339_in_utc(service: Service, name: str) -> None:
    created_at = service.post("/departments", name=name).json()["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", created_at)
    assert datetime.fromisoformat(created_at).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "pair",
    [("Ada", "ada"), ("Ada", "Ada "), ("Ada", " Ada"), ("é", "e\u0301"), ("ß", "ss"), ("1", "1.0")],
)
def test_keys_compare_character_by_character(
    service: Service, department: int, pair: tuple[str, str]
) -> None:
    answers = [service.post("/employees", name=n, department_id=department) for n in pair]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert tuple(answer.json()["name"] for answer in answers) == pair


names = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=255
).filter(lambda text: not re.fullmatch(f"[{INVISIBLE}]*", text))


@given(text=names)
def test_any_name_comes_back_as_it_was_sent(shared_service: Service, text: str) -> None:
    first = shared_service.post("/departments", name=text)
    again = shared_service.post("/departments", name=text)
    listed = shared_service.http.get("/departments", params={"name": text}).json()["items"]
    assert first.status_code in (200, 201)
    assert again.status_code == 200
    assert first.json()["name"] == text
    assert listed == [first.json()] == [again.json()]


def test_server_timing_is_on_every_post(service: Service, name: str) -> None:
    answers = [
        service.post("/departments", name=name),
        service.post("/departments", name=name),
        service.post("/employees", name=name, department_id=2**62),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 422]
    for answer in answers:
        assert re.fullmatch(r'db;dur=\d+\.\d;desc="attempts=\d+"', answer.headers["server-timing"])
    refused = service.post("/departments", name="")
    assert refused.headers["server-timing"] == 'db;dur=0.0;desc="attempts=0"'


# Legacy duplicates


@pytest.fixture
def duplicated(service: Service, name: str, department: int) -> list[int]:
    """The ids of three legacy rows with one key, the last of which was inserted first."""
    insert = "INSERT INTO employees (department_id, name) VALUES (%s, %s) RETURNING id"
    ids = sorted(service.sql(insert, department, name)[0][0] for _ in range(3))
    service.sql("DELETE FROM employees WHERE id = ANY (%s)", ids)
    for id_ in reversed(ids):
        with_id = "INSERT INTO employees (id, department_id, name) VALUES (%s, %s, %s)"
        service.sql(with_id, id_, department, name)
    return ids


def test_of_legacy_duplicates_the_lowest_id_answers(
    service: Service, name: str, department: int, duplicated: list[int]
) -> None:
    answer = service.post("/employees", name=name, department_id=department)
    assert answer.status_code == 200
    assert answer.json()["id"] == duplicated[0]
    assert answer.headers["duplicates"] == "3"
    assert answer.headers["location"] == f"/employees/{duplicated[0]}"


@pytest.mark.parametrize(
    "prefer",
    [
        "handling=strict",
        "Handling = Strict",
        "respond-async, handling=strict; x=y",
        'handling="strict"',
    ],
)
def test_strict_refuses_duplicates_and_changes_nothing(
    service: Service, name: str, department: int, duplicated: list[int], prefer: str
) -> None:
    body: dict[str, Any] = {"name": name, "department_id": department}
    answer = service.http.post("/employees", json=body, headers={"Prefer": prefer})
    assert_problem(answer, 412)
    assert answer.headers["duplicates"] == "3"
    assert "server-timing" in answer.headers
    listed = service.http.get("/employees", params=body).json()["items"]
    assert [row["id"] for row in listed] == duplicated


@pytest.mark.usefixtures("duplicated")
@pytest.mark.parametrize("prefer", ["handling=lenient", "x-handling=strict", "handling=strictly"])
def test_other_preferences_are_ignored(
    service: Service, name: str, department: int, prefer: str
) -> None:
    body = {"name": name, "department_id": department}
    answer = service.http.post("/employees", json=body, headers={"Prefer": prefer})
    assert answer.status_code == 200


def test_strict_creates_and_finds_where_there_are_no_duplicates(
    service: Service, name: str
) -> None:
    headers = {"Prefer": "handling=strict"}
    answers = [
        service.http.post("/departments", json={"name": name}, headers=headers) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 200]


# Reading and deleting


def test_get(service: Service, name: str, department: int) -> None:
    created = service.post("/employees", name=name, department_id=department)
    found = service.http.get(created.headers["location"])
    assert found.status_code == 200
    assert found.json() == created.json()
    head = service.http.head(created.headers["location"])
    assert head.status_code == 200
    assert head.content == b""


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("resource", ["departments", "employees"])
def test_an_id_that_is_not_there(service: Service, method: str, resource: str) -> None:
    assert_problem(service.http.request(method, f"/{resource}/{2**63 - 1}"), 404)


def test_delete_of_an_employee(service: Service, name: str, department: int) -> None:
    created = service.post("/employees", name=name, department_id=department)
    deleted = service.http.delete(created.headers["location"])
    assert deleted.status_code == 204
    assert deleted.content == b""
    assert "attempts=1" in deleted.headers["server-timing"]
    assert_problem(service.http.get(created.headers["location"]), 404)
    again = service.http.delete(created.headers["location"])
    assert_problem(again, 404)
    assert "attempts=1" in again.headers["server-timing"]
    again = service.post("/employees", name=name, department_id=department)
    assert again.status_code == 201
    assert again.json()["id"] != created.json()["id"]


def test_delete_of_a_department_takes_its_employees(
    service: Service, name: str, department: int
) -> None:
    employee = service.post("/employees", name=name, department_id=department)
    assert service.http.delete(f"/departments/{department}").status_code == 204
    assert_problem(service.http.get(employee.headers["location"]), 404)
    body = {"name": name, "department_id": department}
    assert_problem(service.post("/employees", **body), 422, "#/department_id")


def test_pages_go_by_id_and_end(service: Service, name: str, department: int) -> None:
    ids = [
        service.post("/employees", name=f"{name} {n}", department_id=department).json()["id"]
        for n in range(5)
    ]
    url: str | None = f"/employees?department_id={department}&limit=2"
    pages = []
    while url:
        page = service.http.get(url).json()
        assert set(page) == {"items", "next"}
        pages.append([row["id"] for row in page["items"]])
        url = page["next"]
    assert pages == [ids[:2], ids[2:4], ids[4:]]


def test_a_full_last_page_has_no_next(service: Service, name: str, department: int) -> None:
    for n in range(2):
        service.post("/employees", name=f"{name} {n}", department_id=department)
    page = service.http.get("/employees", params={"department_id": department, "limit": 2}).json()
    assert len(page["items"]) == 2
    assert page["next"] is None


def test_lists_filter_by_every_field_of_the_key(
    service: Service, name: str, department: int
) -> None:
    other = service.post("/departments", name=f"another of {name}").json()["id"]
    rows = [
        service.post("/employees", name=n, department_id=d).json()
        for d in (department, other)
        for n in (name, f"other {name}")
    ]

    def listed(**params: Any) -> list[Any]:
        return list(service.http.get("/employees", params=params).json()["items"])

    assert listed(department_id=department) == rows[:2]
    # The filter is never the name alone, by which PostgreSQL would read all rows.
    assert listed(department_id=other, name=name) == [rows[2]]
    assert listed(department_id=other, name=name, after=rows[2]["id"]) == []


def test_next_keeps_the_filters(service: Service, name: str, department: int) -> None:
    odd = f"{name} & a=b #?é+"
    service.sql(
        "INSERT INTO employees (department_id, name) SELECT %s, %s FROM generate_series(1, 3)",
        department,
        odd,
    )
    page = service.http.get(
        "/employees", params={"department_id": department, "name": odd, "limit": 2}
    ).json()
    assert page["next"].startswith("/employees?")
    rest = service.http.get(page["next"]).json()
    assert len(rest["items"]) == 1
    assert rest["items"][0]["name"] == odd
    assert rest["next"] is None


def test_limit_is_100_if_left_out(service: Service, department: int) -> None:
    service.sql(
        "INSERT INTO employees (department_id, name)"
        " SELECT %s, n::text FROM generate_series(1, 101) AS n",
        department,
    )
    page = service.http.get("/employees", params={"department_id": department}).json()
    assert len(page["items"]) == 100
    assert page["next"] == f"/employees?department_id={department}&after={page['items'][-1]['id']}"


# From the address alone


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
def test_the_root_tells_every_path(service: Service, accept: str | None) -> None:
    answer = service.http.get("/", headers={"Accept": accept} if accept else {})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "resources": ["/departments", "/employees"],
        "openapi": "/openapi.json",
        "inspect": "/inspect",
        "ready": "/ready",
        "metrics": "/metrics",
    }
    resources, *others = answer.json().values()
    for path in (*resources, *others):
        assert service.http.get(path).status_code == 200
    head = service.http.head("/")
    assert (head.status_code, head.content) == (200, b"")


def test_the_root_sends_a_browser_to_the_pages(service: Service) -> None:
    accept = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    for method in ("GET", "HEAD"):
        answer = service.http.request(method, "/", headers=accept)
        assert (answer.status_code, answer.headers["location"]) == (303, "/inspect")


# Health


def test_live_and_ready(service: Service) -> None:
    for path in ("/live", "/ready"):
        assert service.http.get(path).status_code == 200


# Bad input gets a clear error, and costs nothing else


def post_raw(body: bytes, content_type: str = "application/json") -> Callable[[Service], Any]:
    return lambda service: service.http.post(
        "/employees", content=body, headers={"Content-Type": content_type}
    )


def post(body: object) -> Callable[[Service], Any]:
    return post_raw(json.dumps(body).encode())


def get(path: str) -> Callable[[Service], Any]:
    return lambda service: service.http.get(path)


D, N = "#/department_id", "#/name"
GOOD = {"department_id": 1, "name": "Ada"}

BAD_INPUT = {
    # 400
    "empty body": (400, post_raw(b""), []),
    "not JSON": (400, post_raw(b"name=Ada"), []),
    "cut short": (400, post_raw(b'{"name": "Ada'), []),
    "trailing characters": (400, post_raw(b"{} {}"), []),
    "NaN": (400, post_raw(b'{"department_id": NaN, "name": "Ada"}'), []),
    "not UTF-8": (400, post_raw(b'{"department_id": 1, "name": "\xff"}'), []),
    "a surrogate in UTF-8": (400, post_raw(b'{"department_id": 1, "name": "\xed\xa0\x80"}'), []),
    "UTF-16": (400, post_raw(json.dumps(GOOD).encode("utf-16")), []),
    "byte order mark": (400, post_raw(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()), []),
    "query not UTF-8": (400, get("/employees?name=%ff"), []),
    "nested too deep": (400, post_raw(b"[" * 10_000), []),
    # 404, 405, 413, 415
    "no such path": (404, get("/managers"), []),
    "trailing slash": (404, get("/employees/"), []),
    "encoded slash": (404, get("/departments/1%2F"), []),
    "wrong method": (405, lambda service: service.http.put("/employees", json=GOOD), []),
    "wrong method on a row": (405, lambda service: service.http.patch("/employees/1"), []),
    "too large": (413, post({**GOOD, "name": "a" * 20_000}), []),
    "too large, in chunks": (
        413,
        lambda service: service.http.post(
            "/employees",
            content=iter([b" " * 10_000] * 3),
            headers={"Content-Type": "application/json"},
        ),
        [],
    ),
    "a form": (415, post_raw(b"name=Ada", "application/x-www-form-urlencoded"), []),
    "no content type": (415, lambda service: service.http.post("/employees", content=b"{}"), []),
    # 422: the body
    "an array": (422, post([GOOD, "Ada"]), ["#/1"]),
    "a string": (422, post("Ada"), ["#"]),
    "null": (422, post(None), ["#"]),
    "nothing": (422, post({}), [D, N]),
    "name missing": (422, post({"department_id": 1}), [N]),
    "unknown field": (422, post({**GOOD, "<script>": 1}), ["#"]),
    "name of the wrong type": (422, post({**GOOD, "name": 5}), [N]),
    "name null": (422, post({**GOOD, "name": None}), [N]),
    "name empty": (422, post({**GOOD, "name": ""}), [N]),
    "name blank": (422, post({**GOOD, "name": " \t\n\u3000"}), [N]),
    "name of a zero-width space": (422, post({**GOOD, "name": "\u200b"}), [N]),
    "name of fillers": (422, post({**GOOD, "name": "\u3164\u115f\u1160\uffa0 \u2800"}), [N]),
    "name of a soft hyphen": (422, post({**GOOD, "name": "\u00ad"}), [N]),
    "name of controls": (422, post({**GOOD, "name": "\x01\x7f\x9f"}), [N]),
    "name of a bidi override": (422, post({**GOOD, "name": "\u202e\u2066"}), [N]),
    "name of selectors": (422, post({**GOOD, "name": "\ufe0f\U000e0100"}), [N]),
    "name of tags": (422, post({**GOOD, "name": "\U000e0041\U000e007f"}), [N]),
    "name of 255 joiners": (422, post({**GOOD, "name": "\u200d" * 255}), [N]),
    "name over 255 characters": (422, post({**GOOD, "name": "é" * 256}), [N]),
    "name with NUL": (422, post({**GOOD, "name": "A\x00da"}), [N]),
    "name ends in NUL": (422, post({**GOOD, "name": "Ada\x00"}), [N]),
    "high surrogate": (422, post({**GOOD, "name": "Ada \ud800"}), [N]),
    "low surrogate": (422, post({**GOOD, "name": "\udc00 Ada"}), [N]),
    "surrogates swapped": (422, post({**GOOD, "name": "\udc00\ud800"}), [N]),
    "surrogate in a key": (422, post({**GOOD, "\ud800": 1}), ["#"]),
    "id 0": (422, post({**GOOD, "department_id": 0}), [D]),
    "id negative": (422, post({**GOOD, "department_id": -1}), [D]),
    "id 2^63": (422, post({**GOOD, "department_id": 2**63}), [D]),
    "id of 22 digits": (422, post({**GOOD, "department_id": 10**21}), [D]),
    "id of 9,000 digits": (422, post_raw(b'{"name":"A","department_id":%s}' % (b"9" * 9000)), [D]),
    "id past any float": (422, post_raw(b'{"name": "Ada", "department_id": 1e999}'), [D]),
    "id a float": (422, post({**GOOD, "department_id": 1.5}), [D]),
    "id a float too large": (422, post_raw(b'{"department_id": 1e400, "name": "Ada"}'), [D]),
    "id almost 1": (422, post_raw(b'{"department_id": 1.%s1, "name": "A"}' % (b"0" * 99)), [D]),
    "id nothing": (422, post_raw(b'{"department_id": 1e-%s, "name": "A"}' % (b"9" * 99)), [D]),
    "id a string": (422, post({**GOOD, "department_id": "1"}), [D]),
    "id true": (422, post({**GOOD, "department_id": True}), [D]),
    "a field twice, once wrong": (422, post_raw(b'{"department_id":1,"name":5,"name":"A"}'), ["#"]),
    "a field twice": (422, post_raw(b'{"department_id":1,"name":"A","name":"B"}'), ["#"]),
    "a field twice, and what is not JSON": (400, post_raw(b'{"name":"A","name":"B"} x'), []),
    "a field twice further in, not ended": (400, post_raw(b'{"name":{"x":1,"x":1}'), []),
    "a field twice, the same": (422, post_raw(b'{"name":"A","department_id":1,"name":"A"}'), ["#"]),
    "an id twice": (422, post_raw(b'{"department_id":1,"department_id":2,"name":"A"}'), ["#"]),
    "a field twice, escaped": (
        422,
        post_raw(rb'{"department_id":1,"name":"A","n\u0061me":"B"}'),
        ["#"],
    ),
    "a field twice, colons escaped": (
        422,
        post_raw(rb'{"department_id":1,"name":"\u003a","name":"\u003a"}'),
        ["#"],
    ),
    "a field thrice, with colons": (
        422,
        post_raw(b'{"department_id":1,"name":":","name":"A:","name":"B"}'),
        ["#"],
    ),
    "an unknown field twice": (422, post_raw(b'{"department_id":1,"name":"A","x":1,"x":1}'), ["#"]),
    "a field twice, further in": (
        422,
        post_raw(b'{"department_id":1,"name":"A","x":[{"y":1,"y":1}]}'),
        ["#"],
    ),
    "two things at once": (422, post({"department_id": "1", "name": ""}), [D, N]),
    "no such department": (422, post({**GOOD, "department_id": 2**63 - 1}), [D]),
    # 422: the path and the query string
    "path id -2^63-1": (422, get(f"/employees/{-(2**63) - 1}"), ["#/id"]),
    "path id 2^63": (422, get(f"/employees/{2**63}"), ["#/id"]),
    "path id a word": (422, get("/employees/ada"), ["#/id"]),
    "delete of a word": (422, lambda service: service.http.delete("/departments/a"), ["#/id"]),
    "path id a float": (422, get("/employees/1.0"), ["#/id"]),
    "path id an exponent": (422, get("/employees/1e0"), ["#/id"]),
    "delete of a float": (422, lambda service: service.http.delete("/employees/1.0"), ["#/id"]),
    "path id in other digits": (422, get("/employees/１"), ["#/id"]),
    "path id of 5,000 digits": (422, get(f"/employees/{'9' * 5000}"), ["#/id"]),
    "limit a float": (422, get("/employees?limit=1e1"), ["#/limit"]),
    "limit 0": (422, get("/employees?limit=0"), ["#/limit"]),
    "limit 1001": (422, get("/employees?limit=1001"), ["#/limit"]),
    "limit a word": (422, get("/employees?limit=all"), ["#/limit"]),
    "limit empty": (422, get("/employees?limit="), ["#/limit"]),
    "after a word": (422, get("/employees?after=a"), ["#/after"]),
    "after 2^63": (422, get(f"/employees?after={2**63}"), ["#/after"]),
    "department a word": (422, get("/employees?department_id=a"), ["#/department_id"]),
    "department null": (422, get("/employees?department_id=null"), ["#/department_id"]),
    "name without department": (422, get("/employees?name=Ada"), [N]),
    "name without department, later": (422, get("/employees?after=5&limit=1&name=Ada"), [N]),
    "name filter with NUL": (422, get("/employees?name=%00"), ["#/name"]),
    "name filter invisible": (422, get("/departments?name=%E2%80%8B"), [N]),
    "unknown parameter": (422, get("/departments?department_id=1"), ["#"]),
    "a parameter twice": (422, get("/employees?limit=1&limit=2"), ["#"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(service: Service, case: str, department: int, name: str) -> None:
    status, send, pointers = BAD_INPUT[case]
    answer = send(service)
    assert_problem(answer, status, *pointers)
    assert "script" not in answer.text
    # The next good request works, and no connection is left in a transaction.
    good = service.post("/employees", name=name, department_id=department)
    assert good.status_code == 201
    assert service.sessions_in_transaction() == 0


def test_a_name_may_have_colons(service: Service, department: int, name: str) -> None:
    text = f'{name}: "{{a: 1}}"::'
    created = service.post("/employees", name=text, department_id=department)
    assert created.status_code == 201
    assert created.json()["name"] == text


def test_405_lists_what_is_allowed(service: Service) -> None:
    allowed = {
        path: set(service.http.patch(path).headers["allow"].split(", "))
        for path in ("/", "/employees", "/departments/1", "/live")
    }
    assert allowed == {
        "/": {"GET", "HEAD"},
        "/employees": {"GET", "HEAD", "POST"},
        "/departments/1": {"GET", "HEAD", "DELETE"},
        "/live": {"GET", "HEAD"},
    }


def test_a_body_of_just_255_characters_and_spaces_around_it(service: Service, name: str) -> None:
    text = (name + "é" * 255)[:255]
    body = json.dumps({"name": text}, ensure_ascii=False).encode()
    padded = body + b" " * (16384 - len(body))
    answer = service.http.post(
        "/departments", content=padded, headers={"Content-Type": "Application/JSON; charset=utf-8"}
    )
    assert answer.status_code == 201
    assert answer.json()["name"] == text


def test_callers_that_go_away_leave_nothing_behind(service: Service, name: str) -> None:
    for n in range(50):
        body = json.dumps({"name": f"{name} {n}"}).encode()
        head = (
            b"POST /departments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        # Every other caller leaves in the middle of the body, and the others when all is sent.
        with socket.create_connection(("127.0.0.1", service.port), LIMIT) as caller:
            caller.sendall((head + body)[: len(head) + (len(body) if n % 2 else 5)])
    assert service.post("/departments", name=name).status_code == 201
    until(lambda: service.sessions_in_transaction() == 0)
    assert "Traceback" not in service.log.read_text()


# 503: the database cannot serve


def assert_unavailable(answer: httpx.Response, detail: str) -> None:
    assert_problem(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["detail"] == detail


@pytest.mark.long
def test_503_attempts_used_up(database: str, name: str) -> None:
    sql(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'never' USING ERRCODE = '40001'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON departments"
        " FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    with serving(DATABASE_URL=database, RETRY_DEADLINE="1") as service:
        answer = service.post("/departments", name=name)
        assert_unavailable(answer, "No attempt succeeded before the deadline.")
        attempts = re.search(r"attempts=(\d+)", answer.headers["server-timing"])
        assert attempts is not None
        assert int(attempts[1]) > 1
        service.sql("DROP TRIGGER refuse ON departments")
        assert service.post("/departments", name=name).status_code == 201


def test_503_pool_queue_full(database: str, name: str) -> None:
    with (
        serving(
            DATABASE_URL=database, POOL_SIZE="1", POOL_QUEUE="1", RETRY_DEADLINE="3600"
        ) as service,
        psycopg.connect(database) as blocker,
        ThreadPoolExecutor(4) as threads,
    ):
        service.await_ready()
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        posts = [threads.submit(service.post, "/departments", name=name) for _ in range(3)]
        # One POST has the connection and waits for the table; another waits for the connection.
        refused = next(as_completed(posts, LIMIT)).result()
        assert_unavailable(refused, "Too many requests are waiting for a database connection.")
        blocker.rollback()
        assert sorted(post.result().status_code for post in posts) == [200, 201, 503]


@pytest.mark.long
def test_503_no_database(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql://127.0.0.1:{port}/nowhere"
    with serving(DATABASE_URL=url, RETRY_DEADLINE="0.3") as service:
        no_connection = "No database connection could be had before the deadline."
        assert_unavailable(service.post("/departments", name=name), no_connection)
        assert_unavailable(service.http.get("/departments"), no_connection)
        assert_unavailable(service.http.delete("/departments/1"), no_connection)
        assert_unavailable(service.http.get("/ready"), no_connection)
        assert service.http.get("/live").status_code == 200


def test_503_read_only_database(database: str, name: str) -> None:
    read_only = make_conninfo(
        database, options="-c default_transaction_read_only=on", target_session_attrs="any"
    )
    with serving(DATABASE_URL=read_only) as service:
        assert_unavailable(service.post("/departments", name=name), "The database is read-only.")
        assert_unavailable(service.http.get("/ready"), "The database is read-only.")
        assert service.http.get("/departments").status_code == 200


def test_503_without_the_tables_until_init(server: str, name: str) -> None:
    sql(server, "CREATE DATABASE onerow_test_bare")
    bare = make_conninfo(server, dbname="onerow_test_bare")
    with serving(DATABASE_URL=bare) as service:
        missing = "The tables, or rights on them, are missing: run `python -m db init`."
        assert_unavailable(service.http.get("/ready"), f"{missing} It is about departments.")
        assert_unavailable(service.post("/departments", name=name), missing)
        assert "run `python -m db init`" in service.log.read_text()
        subprocess.run(
            [sys.executable, "-m", "db", "init"],
            cwd=ROOT,
            env=environment(DATABASE_URL=bare),
            check=True,
        )
        service.await_ready()
        assert service.post("/departments", name=name).status_code == 201


@pytest.fixture(scope="module")
def wild(new_database: Callable[[], str]) -> Iterator[Service]:
    """A service on tables that have constraints and triggers of someone else's."""
    database = new_database()
    sql(
        database,
        "ALTER TABLE departments ADD CHECK (name <> 'Nobody');"
        "ALTER TABLE departments ALTER name TYPE varchar(100);"
        "ALTER TABLE employees ALTER department_id TYPE int;"
        "CREATE TABLE others (department_id bigint REFERENCES departments);"
        "CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF coalesce(NEW.name, OLD.name) = 'Kept' AND TG_OP = 'DELETE' OR"
        " NEW.name = 'Refused' THEN RAISE EXCEPTION 'no'; END IF;"
        " IF coalesce(NEW.name, OLD.name) = 'Held' AND TG_OP = 'DELETE' OR NEW.name = 'Coded'"
        " THEN RAISE EXCEPTION 'no' USING ERRCODE = 'ZZ001'; END IF;"
        " RETURN coalesce(NEW, OLD); END $$;"
        "CREATE TRIGGER object BEFORE INSERT OR DELETE ON departments"
        " FOR EACH ROW EXECUTE FUNCTION object()",
    )
    with serving(DATABASE_URL=database) as service:
        yield service


@pytest.mark.parametrize("text", ["Nobody", "Refused", "Coded", "a" * 101])
def test_what_the_table_refuses_is_the_callers_error(wild: Service, text: str) -> None:
    answer = wild.post("/departments", name=text)
    assert_problem(answer, 422, "#")
    assert "server-timing" in answer.headers


def test_an_id_past_the_columns_type(wild: Service) -> None:
    assert_problem(wild.post("/employees", name="Ada", department_id=2**40), 422, "#")


def test_rows_that_others_refer_to_or_protect_are_not_deleted(wild: Service) -> None:
    for text in ("Referred to", "Kept", "Held"):
        id_ = wild.post("/departments", name=text).json()["id"]
        wild.sql("INSERT INTO others VALUES (%s)", id_)
        kept = wild.http.delete(f"/departments/{id_}")
        assert_problem(kept, 409)
        assert "attempts=1" in kept.headers["server-timing"]


def test_a_time_that_json_cannot_tell_is_null(wild: Service) -> None:
    ((id_,),) = wild.sql(
        "INSERT INTO departments (name, created_at) VALUES ('Ever', 'infinity') RETURNING id"
    )
    row = {"id": id_, "name": "Ever", "created_at": None}
    assert wild.http.get(f"/departments/{id_}").json() == row
    assert wild.post("/departments", name="Ever").json() == row
    assert row in wild.http.get("/departments").json()["items"]


def test_a_column_that_changes_its_type_under_the_service(database: str, name: str) -> None:
    with serving(DATABASE_URL=database, POOL_SIZE="1") as service:
        service.connections_break = True  # the service closes one that has an old plan
        assert service.post("/departments", name=name).status_code == 201
        service.sql("ALTER TABLE departments ALTER name TYPE varchar(300)")
        service.await_ready()
        assert service.post("/departments", name=name).status_code == 200
        service.await_ready()


@pytest.mark.long
@pytest.mark.parametrize(
    ("encoding", "status"), [("UTF8", 201), ("LATIN1", 422), ("SQL_ASCII", 201)]
)
def test_databases_in_other_encodings(server: str, encoding: str, status: int) -> None:
    name = f"onerow_test_{encoding.lower()}"
    sql(server, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    database = make_conninfo(server, dbname=name)
    apply_schema(database)
    with serving(DATABASE_URL=database) as service:
        assert service.post("/departments", name="é").json()["name"] == "é"
        assert service.post("/departments", name="é").status_code == 200
        assert service.post("/departments", name="漢").status_code == status
        assert service.http.get("/departments", params={"name": "漢"}).status_code in (200, 422)


@pytest.mark.long
def test_pgoptions_are_kept(database: str, name: str) -> None:
    sql(database, "CREATE SCHEMA legacy")
    for table in ("departments", "employees"):
        sql(database, f"CREATE TABLE legacy.{table} (LIKE {table} INCLUDING ALL)")
    with serving(DATABASE_URL=database, PGOPTIONS="-c search_path=legacy") as service:
        assert service.post("/departments", name=name).status_code == 201
    assert sql(database, "SELECT name FROM legacy.departments") == [(name,)]


@pytest.mark.long
def test_a_body_that_trickles_is_given_up(database: str) -> None:
    with serving(DATABASE_URL=database, RETRY_DEADLINE="0.3") as service:
        head = (
            b"POST /departments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        )
        with socket.create_connection(("127.0.0.1", service.port), LIMIT) as caller:
            caller.sendall(head + b'Content-Length: 100\r\n\r\n{"name":')
            assert caller.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_the_service_is_back_when_the_database_is(name: str) -> None:
    with temporary_data_dir() as data_dir:
        with embedded_server(data_dir) as url:
            apply_schema(url)
        with serving(DATABASE_URL=url, RETRY_DEADLINE="1") as service:
            # After three deadlines the pool has given up trying by itself.
            for _ in range(3):
                assert service.post("/departments", name=name).status_code == 503
            with embedded_server(data_dir):
                until(lambda: service.post("/departments", name=name).status_code == 200)
                service.await_ready()


@pytest.mark.long
def test_a_request_that_waits_is_served_as_soon_as_the_database_is_back(name: str) -> None:
    with temporary_data_dir() as data_dir:
        with embedded_server(data_dir) as url:
            apply_schema(url)
        with (
            serving(DATABASE_URL=url, POOL_SIZE="1", RETRY_DEADLINE=str(LIMIT / 2)) as service,
            ThreadPoolExecutor(1) as thread,
        ):
            answer = thread.submit(service.post, "/departments", name=name)
            # The pool has given up several times by then.
            until(lambda: service.log.read_text().count("reconnection attempt") > 3)
            with embedded_server(data_dir):
                assert answer.result().status_code == 201


def test_requests_in_flight_are_answered_at_sigterm(database: str, name: str) -> None:
    with (
        serving(DATABASE_URL=database, RETRY_DEADLINE="3600") as service,
        psycopg.connect(database) as blocker,
    ):
        service.await_ready()
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(service.post, "/departments", name=name)
            until(lambda: service.sessions_in_transaction() > 0)
            service.process.send_signal(signal.SIGTERM)
            blocker.rollback()
            assert answer.result().status_code == 201
        assert service.process.wait(LIMIT) == 0


@pytest.mark.long
def test_init_on_a_live_database_holds_nobody_up(database: str) -> None:
    with serving(DATABASE_URL=database) as service, psycopg.connect(database) as writer:
        writer.execute("INSERT INTO departments (name) VALUES ('in the making')")
        with legacy.start(database, "init") as init:
            waiting = "SELECT FROM pg_stat_activity WHERE application_name = 'onerow init'"
            until(lambda: service.sql(waiting + " AND wait_event_type = 'Lock'") != [])
            assert service.post("/departments", name="Sales").status_code == 201
            assert init.poll() is None
            writer.commit()
            assert init.wait(LIMIT) == 0


def test_a_foreign_key_that_someone_has_added_is_refused(database: str) -> None:
    sql(database, "CREATE TABLE regions (id bigint PRIMARY KEY)")
    sql(database, "ALTER TABLE departments ADD region bigint DEFAULT 42 REFERENCES regions")
    with serving(DATABASE_URL=database) as service:
        assert service.post("/departments", name="Sales").status_code == 422
