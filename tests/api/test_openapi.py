"""/openapi.json describes each answer of the service, and the service gives each one described."""

import http.client
import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.conninfo import make_conninfo

from db.engine import POSTGRESQL
from db.header import File
from db.resources import Resource
from tests.support.service import LIMIT, ROOT, Service, environment, serving, sql
from tests.support.validator import VALIDATOR
from web.endpoint import endpoints
from web.openapi import document

TOKEN = "a-token"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}

# `make fuzz` installs the validator, with some forty packages that nothing else needs.

# Headers of HTTP itself and of every page, of which the contract says nothing.
PLAIN_HEADERS = {
    "cache-control",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "referrer-policy",
    "x-content-type-options",
}


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    """A service with legacy duplicates, retired ids, and tables that refer to its own."""
    database = new_database()
    sql(
        database,
        "INSERT INTO departments (name) SELECT 'twice' FROM generate_series(1, 2);"
        "INSERT INTO employees (department_id, name) SELECT 1, 'twice' FROM generate_series(1, 2);"
        "INSERT INTO merged (resource, id, kept, content, pointed) VALUES"
        " ('departments', 99, 1, '{}', '{}'), ('employees', 99, 1, '{}', '{}');"
        "CREATE TABLE badges (department bigint REFERENCES departments,"
        " employee bigint REFERENCES employees);"
        "INSERT INTO badges VALUES (1, 1)",
    )
    with serving(DATABASE_URL=database) as service:
        yield service


@pytest.fixture(scope="module")
def closed(server: str) -> Iterator[Service]:
    """A service with a token, and a database that does not exist."""
    nowhere = make_conninfo(server, dbname="nowhere")
    with serving(DATABASE_URL=nowhere, API_TOKEN=TOKEN, RETRY_DEADLINE="2") as service:
        yield service


@pytest.fixture(scope="module")
def described(service: Service, closed: Service) -> dict[str, Any]:
    """The document of a service with a token, and the answers that only one without a token has."""
    paths: dict[str, Any] = closed.http.get("/openapi.json", headers=AUTHORIZED).json()["paths"]
    openly = service.http.get("/openapi.json").json()["paths"]
    for path, item in paths.items():
        for method, operation in item.items():
            known = openly[path][method]["responses"]
            assert known.keys() - operation["responses"].keys() <= {"403", "421"}
            operation["responses"] = {**known, **operation["responses"]}
    return paths


def documented(paths: dict[str, Any], answer: httpx.Response) -> tuple[str, str, int]:
    """Assert that the document has this answer; return its method, path and status."""
    path = httpx.URL(answer.request.url).path
    templates = [
        template
        for template in sorted(paths, key=lambda each: each.count("{"))
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/.]+", template), path)
    ]
    assert templates, path
    method = answer.request.method
    about = f"{method} {templates[0]} {answer.status_code}: {answer.text[:200]}"
    responses = paths[templates[0]][method.lower()]["responses"]
    assert str(answer.status_code) in responses, about
    response = responses[str(answer.status_code)]
    content_type = answer.headers.get("content-type", "").partition(";")[0]
    if method == "HEAD":
        assert "content" not in response, about
    else:
        assert content_type in response.get("content", {"": None}), about
    headers = {name.lower(): header for name, header in response.get("headers", {}).items()}
    assert answer.headers.keys() - PLAIN_HEADERS <= headers.keys(), about
    required = {name for name, header in headers.items() if header["required"]}
    assert required <= answer.headers.keys(), about
    return method, templates[0], answer.status_code


def provoke(service: Service) -> Iterator[httpx.Response]:
    """Yield every answer that depends on the database, and the answers to bad input."""
    call = service.http.request
    strict = {"Prefer": "handling=strict"}
    for path, key in (
        ("/departments", {"name": "new"}),
        ("/employees", {"name": "new", "department_id": 1}),
    ):
        twice = {**key, "name": "twice"}
        created = call("POST", path, json=key)
        yield created
        yield call("POST", path, json=key)
        yield call("POST", path, json=twice)
        yield call("POST", path, json=twice, headers=strict)
        yield call("POST", path, content=b"{", headers={"Content-Type": "application/json"})
        yield call("POST", path, json={**key, "name": "n" * 20_000})
        yield call("POST", path, content=b"{}")
        yield call("POST", path, json=key, headers={"Content-Encoding": "gzip"})
        yield call("POST", path, json={})
        for method in ("GET", "HEAD"):
            for query in ("", "?limit=0", "?name=%ff"):
                yield call(method, path + query)
            for id_ in (1, 98, 99, "a"):
                yield call(method, f"{path}/{id_}")
                yield call(method, f"{path}/{id_}/merged")
            yield call(method, f"{path}/1/merged?limit=%ff")
        for id_ in (1, 98, "a"):
            yield call("DELETE", f"{path}/{id_}")
        yield call("DELETE", created.headers["location"])
    for method in ("GET", "HEAD"):
        yield call(method, "/employees?department_id=99")
        for path in ("/", "/live", "/ready", "/openapi.json", "/inspect"):
            yield call(method, path)
        yield call(method, "/", headers={"Accept": "text/html"})
        for suffix in ("", ".json", ".csv"):
            for name in ("traffic", "departments_duplicates"):
                for query in ("", "?a=b", "?a=%ff"):
                    yield call(method, f"/inspect/{name}{suffix}{query}")
            # A parameter that is given twice is refused as a problem, and not shown in a page.
            yield call(method, f"/inspect/merged{suffix}?id=1&id=2")
            yield call(method, f"/inspect/unknown{suffix}")
            yield call(method, f"/inspect/statements{suffix}")  # 501, for the extension is missing


def foreign(service: Service, paths: dict[str, Any]) -> Iterator[httpx.Response]:
    """Yield the answers to another site's pages."""
    for path, item in paths.items():
        for method in item:
            target = path.format(id=1, name="departments_duplicates")
            yield service.http.request(method, target, headers={"Host": "evil.example"})
            if method not in ("get", "head"):
                origin = {"Origin": "https://evil.example"}
                yield service.http.request(method, target, headers=origin)


def refusals(service: Service, paths: dict[str, Any]) -> Iterator[httpx.Response]:
    """Yield the answers without a token, without a database, and to a body that is cut short."""
    for path, item in paths.items():
        for method in item:
            target = path.format(id=1, name="departments_duplicates")
            yield service.http.request(method, target)
            yield service.http.request(method, target, headers={"X": "x" * 40_000})

    def ask(path: str, method: str) -> httpx.Response:
        target = path.format(id=1, name="departments_duplicates")
        body = {"name": "Ada", "department_id": 1} if path == "/employees" else {"name": "Ada"}
        return service.http.request(
            method, target, json=body if method == "post" else None, headers=AUTHORIZED
        )

    with ThreadPoolExecutor(2 * len(paths)) as threads:  # all at once, for each takes seconds
        asked = [threads.submit(ask, path, method) for path in paths for method in paths[path]]
        asked += [
            threads.submit(slow_body, service, path) for path in paths if "post" in paths[path]
        ]
        yield from (answer.result() for answer in asked)


def slow_body(service: Service, path: str) -> httpx.Response:
    """Send half a body; return the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LIMIT)
    headers = {**AUTHORIZED, "Content-Type": "application/json", "Content-Length": "100"}
    with closing(connection):
        connection.request("POST", path, b'{"name":', headers)
        answer = connection.getresponse()
        return httpx.Response(
            answer.status,
            headers=answer.getheaders(),
            content=answer.read(),
            request=httpx.Request("POST", service.url + path),
        )


@pytest.mark.long
def test_each_answer_is_described_and_each_description_is_answered(
    service: Service, closed: Service, described: dict[str, Any]
) -> None:
    answers = [
        *provoke(service),
        *foreign(service, described),
        *refusals(closed, described),
    ]
    seen = {documented(described, answer) for answer in answers}
    promised = {
        (method.upper(), path, int(status))
        for path, item in described.items()
        for method, operation in item.items()
        for status in operation["responses"]
    }
    assert seen == promised


def test_each_route_has_its_operations_and_each_operation_its_route(
    described: dict[str, Any],
) -> None:
    code = (
        "import app, json; of_resources, *others = app.app.routes\n"
        "routes = sum(of_resources.routes.values(), others)\n"
        "print(json.dumps([[each.path, [*each.methods]] for each in routes]))"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True, capture_output=True
    )
    routes = {(path, method) for path, methods in json.loads(listed.stdout) for method in methods}
    assert routes == {(path, method.upper()) for path, item in described.items() for method in item}


def test_without_a_token_none_is_asked_for(service: Service, described: dict[str, Any]) -> None:
    openly = service.http.get("/openapi.json").json()
    assert "securitySchemes" not in openly["components"]
    assert '"401"' not in json.dumps(openly)
    for path, item in described.items():
        for operation in item.values():
            schemes = [name for entry in operation.get("security", []) for name in entry]
            needed = [] if path in ("/live", "/ready") else ["token"]
            for_browsers = path == "/" or path.startswith("/inspect")
            assert schemes == needed + ["password"] * for_browsers, path


def test_the_examples_are_what_is_sent_and_answered(database: str) -> None:
    sql(database, "INSERT INTO departments (id, name) VALUES (7, 'Research')")
    with serving(DATABASE_URL=database) as service:
        for path in ("/departments", "/employees"):
            post = service.http.get("/openapi.json").json()["paths"][path]["post"]
            body = post["requestBody"]["content"]["application/json"]["example"]
            example = post["responses"]["201"]["content"]["application/json"]["example"]
            created = service.http.post(path, json=body)
            assert created.status_code == 201
            assert created.json() == {
                **example,
                "id": created.json()["id"],
                "created_at": created.json()["created_at"],
            }


# Python does not have Unicode's property Default_Ignorable_Code_Point, so that this is copied from
# DerivedCoreProperties.txt. The others are characters that are blank by their names.
IGNORABLE = (
    "ad 34f 61c 115f-1160 17b4-17b5 180b-180f 200b-200f 202a-202e 2060-206f 3164 fe00-fe0f feff"
    " ffa0 fff0-fff8 1bca0-1bca3 1d173-1d17a e0000-e0fff"
)
BLANK_BY_NAME = "2800 13441 13442 16fe4 1d159"

# Python 3.11 does not know all of these controls of Egyptian hieroglyphs.
LATER = "13430-1343f"


def characters(ranges: str) -> set[str]:
    found = set()
    for each in ranges.split():
        first, _, last = each.partition("-")
        found |= {chr(code) for code in range(int(first, 16), int(last or first, 16) + 1)}
    return found


def test_invisible_is_the_same_to_the_document_and_to_unicode(described: dict[str, Any]) -> None:
    (pattern,) = (
        parameter["schema"]["pattern"]
        for parameter in described["/departments"]["get"]["parameters"]
        if parameter["name"] == "name"
    )
    assert r"\s" not in pattern.lower()
    assert r"\u" "d800" not in pattern  # few tools can read surrogates in a pattern
    name = re.compile(pattern)
    all_of_them = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    refused = {character for character in all_of_them if not name.search(character)}
    invisible = {
        character
        for character in all_of_them
        if character.isspace() or unicodedata.category(character) in ("Cc", "Cf")
    }
    assert refused == invisible | characters(IGNORABLE) | characters(BLANK_BY_NAME + " " + LATER)
    assert not any(name.search(character * 2) for character in refused)
    assert all(name.search(f"{character}a") for character in refused - {"\0"})
    assert all(name.search(f"a{character}") for character in refused - {"\0"})


@pytest.mark.long
@pytest.mark.skipif(not VALIDATOR.exists(), reason="`make fuzz` installs openapi-spec-validator")
def test_it_is_openapi_3_1(service: Service, closed: Service) -> None:
    for text in (
        service.http.get("/openapi.json").text,
        closed.http.get("/openapi.json", headers=AUTHORIZED).text,
    ):
        done = subprocess.run([VALIDATOR, "-"], input=text, text=True, capture_output=True)
        assert (done.returncode, done.stdout) == (0, "stdin: OK\n"), done.stdout
        assert json.loads(text)["openapi"].startswith("3.1.")


PROJECTS = {
    "select": "-- A project: id bigint, employee_id bigint, urgent boolean, copies bigint.\n{key}",
    "insert": "-- A project: id bigint, employee_id bigint, urgent boolean.\n"
    "{key}-- $3 note text, or NULL\n",
    "get": "-- A project: id bigint, employee_id bigint, urgent boolean.\n-- $1 id bigint\n",
    "list": "-- Projects: id bigint, employee_id bigint, urgent boolean.\n"
    "-- $1 after bigint, or NULL\n-- $2 limit bigint\n",
    "delete": "-- A project: id bigint.\n-- $1 id bigint\n",
}
KEY = "-- $1 employee_id bigint\n-- $2 urgent boolean\n"


def test_a_new_resource_needs_nothing_but_its_files() -> None:
    files = {}
    for name, text in PROJECTS.items():
        header = text.format(key=KEY)
        numbers = range(1, header.count("-- $") + 1)
        files[name] = File(Path(name), header + "SELECT " + ", ".join(f"${n}" for n in numbers))
    projects = Resource("projects", files)
    made = document(endpoints({"projects": projects}, POSTGRESQL), token=False, guessable=True)
    assert set(made["paths"]["/projects"]) == {"get", "post", "head"}
    assert set(made["paths"]["/projects/{id}"]) == {"get", "delete", "head"}
    schemas = made["components"]["schemas"]
    row, body = schemas["projects.row"], schemas["projects.body"]
    assert list(row["properties"]) == ["id", "employee_id", "urgent"]
    assert row["properties"]["urgent"]["type"] == ["boolean", "null"]
    assert list(body["properties"]) == ["employee_id", "urgent", "note"]
    assert body["required"] == ["employee_id", "urgent"]
