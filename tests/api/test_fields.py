"""Each type, as key, attribute and id, is stored as it was sent and found again, or it is 422."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.folders import Part, literal, write
from tests.support.service import LIMIT, Service, serving, sql
from tests.support.validator import VALIDATOR


class Kind(NamedTuple):
    """A type, JSON values that fit it, values that do not, and what equal values have in common."""

    type: str
    values: st.SearchStrategy[Any]
    refused: list[Any]
    rule: str
    meaning: Callable[[Any], object]
    notes: str = ""


def integers(bits: int) -> st.SearchStrategy[int]:
    bound = 2**bits
    return st.sampled_from([-bound, bound - 1, 0, -1]) | st.integers(-bound, bound - 1)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.upper())


def instant(text: str) -> datetime:
    return moment(text).astimezone(UTC)


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, max_size=19).map(lambda text: f"x{text}")
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda number: timezone(timedelta(minutes=number)))
LABELS = ["ok", "it's", "a/b", "..", "100 %", "Ü?#"]
LISTED = ", ".join(literal(label) for label in LABELS)

WRONG = [{}, [], "\0", "a\0b", "\ud800"]
NO_TEXT = [*WRONG, "", "Ada", " ", "1e3", "NaN", "Infinity", "infinity", "7\n", "٧"]
NO_DECIMAL = [*NO_TEXT, 7, 1.5, "+1", ".5", "5.", "1_000"]
NO_DATE = [*NO_TEXT, 7, True, "2026-02-29", "0000-01-01", "10000-01-01", "epoch", "20261125"]
NO_CLOCK = ["24:00:00", "18:00:60", "18:00", "23:59:59.9999999", "18:00:27.1234567"]
NO_TIME = [*NO_DATE, *NO_CLOCK, "18:00:27+01:00"]
NO_MOMENT = [*NO_DATE, "2026-11-25T18:00:27Z", *(f"2026-11-25T{each}" for each in NO_CLOCK)]
NO_INSTANT = [
    *NO_DATE,
    *(f"2026-11-25T{each}Z" for each in NO_CLOCK),
    "2026-11-25T18:00:27",
    "2026-11-25T18:00:27+24:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-01:00",
]

KINDS = {
    "smallint": Kind(
        "smallint",
        integers(15),
        [*NO_TEXT, 2**15, -(2**15) - 1, 1.5, True, "7"],
        "an integer from -32768 to 32767",
        int,
    ),
    "integer": Kind(
        "integer",
        integers(31),
        [*NO_TEXT, 2**31, -(2**31) - 1, 10**30, False],
        "an integer from -2147483648 to 2147483647",
        int,
    ),
    "bigint": Kind(
        "bigint",
        integers(63),
        [*NO_TEXT, 2**63, -(2**63) - 1, 1e300],
        "an integer from -9223372036854775808 to 9223372036854775807",
        int,
    ),
    "text": Kind("text", TEXTS, [*WRONG, 7, True], "must be a string", str),
    "varchar": Kind(
        "character varying(20)",
        TEXTS.filter(lambda text: not text.endswith(" ")),
        [*WRONG, 7, "x" * 21],
        "20 characters",
        str,
    ),
    "citext": Kind("citext", st.text("abXY", min_size=1), [*WRONG, 7], "a string", str.casefold),
    "boolean": Kind("boolean", st.booleans(), [*NO_TEXT, 0, 1, "true", "t"], "true or false", bool),
    "numeric": Kind(
        "numeric",
        st.decimals(allow_nan=False, allow_infinity=False, places=5).map("{:f}".format),
        [*NO_DECIMAL, "1" * 1001, "0." + "1" * 1001],
        "a decimal number as a string",
        Decimal,
    ),
    "price": Kind(
        "numeric(7,2)",
        st.decimals(-99999, 99999, places=2).map(str),
        [*NO_DECIMAL, "100000", "0.123", "1000000.00"],
        "of at most 5 digits, and 2 behind the point",
        Decimal,
    ),
    "uuid": Kind(
        "uuid", st.uuids().map(str), [*NO_TEXT, 7, "0190a5de", f"{{{uuid4()}}}"], "a UUID", UUID
    ),
    "date": Kind(
        "date",
        st.dates().map(str),
        [*NO_DATE, "2026-11-25T00:00:00"],
        "a date as",
        date.fromisoformat,
    ),
    "time": Kind(
        "time without time zone",
        st.times().map(time.isoformat),
        NO_TIME,
        "a time of day without a zone",
        time.fromisoformat,
    ),
    "timestamp": Kind(
        "timestamp without time zone",
        st.datetimes().map(datetime.isoformat),
        NO_MOMENT,
        "a date and time without a zone",
        moment,
    ),
    "timestamptz": Kind(
        "timestamp with time zone",
        st.builds(datetime.replace, MOMENTS, tzinfo=OFFSETS).map(datetime.isoformat),
        NO_INSTANT,
        "a date and time with a zone",
        instant,
    ),
    "enum": Kind(
        "mood",
        st.sampled_from(LABELS),
        [*WRONG, 7, "OK", "sad"],
        "must be one of 'ok', ",
        str,
        f", one of {LISTED}",
    ),
}

TRIGGER = """
CREATE FUNCTION take_id_{name}() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.id := NEW.note::{type}; RETURN NEW; END $$;
CREATE TRIGGER take_id BEFORE INSERT ON id_{name} FOR EACH ROW EXECUTE FUNCTION take_id_{name}();
"""


@pytest.fixture(scope="module")
def service(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    database = new_database()
    sql(database, f"CREATE TYPE mood AS ENUM ({LISTED.replace('%', '%%')})")
    root = tmp_path_factory.mktemp("resources")
    kinds = dict(KINDS)
    try:
        sql(database, "CREATE EXTENSION citext")
    except psycopg.Error:
        del kinds["citext"]
    for name, kind in kinds.items():
        number = "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        sql(
            database,
            f"CREATE TABLE key_{name} (id {number}, k {kind.type} NOT NULL);"
            f"CREATE TABLE null_{name} (id {number}, k {kind.type});"
            f"CREATE TABLE attribute_{name} (id {number}, name text NOT NULL,"
            f" must {kind.type} NOT NULL, may {kind.type});"
            f"CREATE TABLE id_{name} (id {kind.type} PRIMARY KEY, name text NOT NULL, note text);"
            + TRIGGER.format(name=name, type=kind.type),
        )
        key = [Part("name", "text")]
        write(root, f"key_{name}", [Part("k", kind.type, notes=kind.notes)])
        write(root, f"null_{name}", [Part("k", kind.type, notes=f"{kind.notes}, or NULL")])
        must = Part("must", kind.type, notes=kind.notes)
        may = Part("may", kind.type, notes=f"{kind.notes}, or NULL")
        write(root, f"attribute_{name}", key, attributes=[must, may])
        note = Part("note", "text", notes=", or NULL")
        id_ = Part("id", kind.type, notes=kind.notes)
        write(root, f"id_{name}", key, attributes=[note], id_=id_)
    with serving(DATABASE_URL=database, RESOURCES=str(root)) as service:
        yield service


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest, service: Service) -> str:
    if request.param == "citext" and service.http.get("/key_citext").status_code == 404:
        pytest.skip("the server has no citext")
    return str(request.param)


def new() -> str:
    return str(uuid4())


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


few = settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])


def send(service: Service, path: str, body: object) -> Any:
    content = json.dumps(body).encode()
    return service.http.post(path, content=content, headers={"Content-Type": "application/json"})


@given(st.data())
@few
def test_a_key_is_stored_as_sent_and_found_again(
    name: str, service: Service, data: st.DataObject
) -> None:
    kind = KINDS[name]
    value = data.draw(kind.values)
    for table in (f"key_{name}", f"null_{name}"):
        first = send(service, f"/{table}", {"k": value})
        assert first.status_code in (200, 201), first.text
        assert kind.meaning(first.json()["k"]) == kind.meaning(value)
        again = send(service, f"/{table}", {"k": value})
        assert (again.status_code, again.json()) == (200, first.json())
        assert service.http.get(first.headers["Location"]).json() == first.json()
        for given_ in (value, first.json()["k"]):
            listed = service.http.get(f"/{table}", params={"k": as_text(given_)})
            assert listed.json() == {"items": [first.json()], "next": None}, listed.request.url


@given(st.data())
@few
def test_an_attribute_is_stored_as_sent_where_the_row_is_new(
    name: str, service: Service, data: st.DataObject
) -> None:
    kind, path = KINDS[name], f"/attribute_{name}"
    must, other = data.draw(kind.values), data.draw(kind.values)
    may = data.draw(st.none() | kind.values)
    body = {"name": new(), "must": must, "may": may}
    if may is None and data.draw(st.booleans()):
        del body["may"]
    made = send(service, path, body)
    assert made.status_code == 201, made.text
    assert kind.meaning(made.json()["must"]) == kind.meaning(must)
    stored = made.json()["may"]
    assert stored is None if may is None else kind.meaning(stored) == kind.meaning(may)
    again = send(service, path, {**body, "must": other, "may": other})
    assert (again.status_code, again.json()) == (200, made.json())
    listed = service.http.get(path, params={"must": as_text(must), "name": body["name"]})
    assert listed.json()["items"] == [made.json()]


@given(st.data())
@few
def test_an_id_leads_to_its_row(name: str, service: Service, data: st.DataObject) -> None:
    kind, path = KINDS[name], f"/id_{name}"
    id_ = data.draw(kind.values)
    # The id comes to PostgreSQL by way of the note, as text, and it does not take such offsets.
    if name == "timestamptz":
        id_ = instant(id_).isoformat()
    service.sql(f"DELETE FROM id_{name} WHERE id = %s::{kind.type}", as_text(id_))
    made = send(service, path, {"name": new(), "note": as_text(id_)})
    assert made.status_code == 201, made.text
    row = made.json()
    assert kind.meaning(row["id"]) == kind.meaning(id_)
    location = made.headers["Location"]
    # Clients resolve the segment ".." themselves, so that it cannot be asked for in plain.
    sent = location if id_ == ".." else f"{path}/{quote(as_text(id_), safe='')}"
    for each in {location, sent}:
        assert service.http.get(each).json() == row
        assert service.http.head(each).status_code == 200
    # The list reaches the row, in pages of one row each.
    after, seen = f"{path}?limit=1", []
    while after:
        page = service.http.get(after).json()
        seen += page["items"]
        after = page["next"]
    assert row in seen
    assert len(seen) == service.sql(f"SELECT count(*) FROM id_{name}")[0][0]
    assert service.http.delete(location).status_code == 204
    assert service.http.get(location).status_code == 404
    # A merge stores ids as PostgreSQL writes them.
    other = data.draw(kind.values)
    if name == "timestamptz":
        other = instant(other).isoformat()
    if kind.meaning(other) == kind.meaning(id_):
        return
    service.sql(f"DELETE FROM id_{name} WHERE id = %s::{kind.type}", as_text(other))
    kept = send(service, path, {"name": new(), "note": as_text(other)}).json()
    service.sql(
        "INSERT INTO merged (resource, id, kept, content, pointed) VALUES"
        f" (%s, %s::{kind.type}::text, %s::{kind.type}::text, '{{}}', '{{}}')",
        *(f"id_{name}", as_text(id_), as_text(other)),
    )
    moved = service.http.get(location)
    service.sql("DELETE FROM merged")
    assert moved.status_code == 308, moved.text
    assert service.http.get(moved.headers["Location"]).json() == kept


def test_a_number_near_zero_is_written_with_all_its_digits(service: Service) -> None:
    service.sql("DELETE FROM id_numeric; DELETE FROM key_numeric")
    small = ["0.0000000000", "0.0000000001"]  # str() of Decimal would write 0E-10 and 1E-10
    for text in small:
        made = service.post("/id_numeric", name=new(), note=text)
        assert (made.status_code, made.json()["id"]) == (201, text)
        assert service.http.get(made.headers["Location"]).json() == made.json()
        key = service.post("/key_numeric", k=text)
        assert (key.status_code, key.json()["k"]) == (201, text)
    first = service.http.get("/id_numeric", params={"limit": 1}).json()
    second = service.http.get(first["next"]).json()
    assert [row["id"] for row in first["items"] + second["items"]] == small


def test_a_merged_id_is_redirected_in_its_own_spelling_alone(service: Service) -> None:
    """docs/own-table.md says so of ids that have several."""
    spellings = {"numeric": ("2.50", "2.5"), "citext": ("Ada", "ADA")}
    for name, (own, other) in spellings.items():
        path = f"/id_{name}"
        if service.http.get(path).status_code == 404:
            continue  # the server has no citext
        assert service.post(path, name=new(), note=own).status_code == 201
        assert service.http.get(f"{path}/{other}").json()["id"] == own
        service.sql(f"DELETE FROM id_{name}")
        service.sql(
            "INSERT INTO merged (resource, id, kept, content, pointed)"
            " VALUES (%s, %s, '7', '{}', '{}')",
            *(f"id_{name}", own),
        )
        statuses = [service.http.get(f"{path}/{each}").status_code for each in (own, other)]
        service.sql("DELETE FROM merged")
        assert statuses == [308, 404]


def test_an_id_that_is_infinite_has_no_path(service: Service) -> None:
    """docs/own-table.md says so."""
    service.sql("DELETE FROM id_date")
    service.sql(
        "INSERT INTO id_date (id, name, note) VALUES (now(), 'Ever', '-infinity'),"
        " (now(), 'Ada', '2026-11-25')"
    )
    page = service.http.get("/id_date", params={"limit": 1}).json()
    assert page["items"] == [{"id": None, "name": "Ever", "note": "-infinity"}]
    assert service.http.get(page["next"]).status_code == 422
    service.sql("DELETE FROM id_date")


IDS = [
    "",
    ".",
    "..",
    "/",
    "//",
    "a/b",
    "../..",
    "%",
    "%2F",
    " ",
    "a b",
    "é",
    "?x=1#y",
    "\n",
    "\ufffd",
]


@pytest.mark.parametrize("id_", [*IDS, "{id}", "\u202e", "a" * 1000, "名前" * 100])
def test_an_id_may_be_any_text(service: Service, id_: str) -> None:
    made = service.post("/id_text", name=new(), note=id_)
    assert (made.status_code, made.json()["id"]) == (201, id_)
    location = made.headers["Location"]
    assert location.isascii()
    answers = {method: service.http.request(method, location) for method in ("GET", "HEAD")}
    assert answers["GET"].json() == made.json()
    assert answers["HEAD"].status_code == 200
    # One client leaves ".." as it stands, and another one escapes every byte.
    for path in (quote(id_, safe=""), "".join(f"%{byte:02x}" for byte in id_.encode())):
        assert get(service, f"/id_text/{path}").endswith(answers["GET"].content)
    after = service.http.get("/id_text", params={"after": id_}).json()["items"]
    before = service.http.get("/id_text").json()["items"]
    assert before == [*before[: before.index(made.json()) + 1], *after]
    assert service.http.delete(location).status_code == 204
    assert service.http.get(location).status_code == 404
    assert service.http.delete(location).status_code == 404


def test_an_id_that_is_not_utf_8(service: Service) -> None:
    made = service.post("/id_text", name=new(), note="\ufffd")
    for path in ("%FF", "%C3", "%ED%A0%80"):
        assert get(service, f"/id_text/{path}").startswith(b"HTTP/1.1 422 ")
    assert service.http.get(made.headers["Location"]).json() == made.json()
    assert service.http.delete(made.headers["Location"]).status_code == 204


def get(service: Service, path: str) -> bytes:
    """Return the whole answer to a path that is sent as it stands, for httpx would change some."""
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_does_not_fit_is_named_and_changes_nothing(name: str, service: Service) -> None:
    kind = KINDS[name]
    tables = [f"{role}_{name}" for role in ("key", "null", "attribute")]
    counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    before = service.sql(f"SELECT {counts}")
    for value in kind.refused:
        for path, field, rest in (
            (f"/key_{name}", "k", {}),
            (f"/null_{name}", "k", {}),
            (f"/attribute_{name}", "must", {"name": "Ada"}),
            (f"/attribute_{name}", "may", {"name": "Ada"}),
        ):
            answer = send(service, path, {**rest, field: value})
            assert answer.status_code == 422, (path, value, answer.text)
            errors = {each["pointer"]: each["detail"] for each in answer.json()["errors"]}
            assert kind.rule in errors[f"#/{field}"], (value, errors)
            assert answer.headers["Server-Timing"].endswith('"attempts=0"')
    for path, field in ((f"/key_{name}", "k"), (f"/attribute_{name}", "must")):
        errors = send(service, path, {field: None}).json()["errors"]
        assert f"#/{field}" in [each["pointer"] for each in errors]
    assert service.sql(f"SELECT {counts}") == before


@given(st.data())
@few
def test_whatever_comes_is_stored_or_refused(
    name: str, service: Service, data: st.DataObject
) -> None:
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
    )
    value = data.draw(scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars))
    count = f"SELECT count(*) FROM null_{name}"
    (before,) = service.sql(count)[0]
    answer = send(service, f"/null_{name}", {"k": value})
    assert answer.status_code in (200, 201, 422), answer.text
    assert service.sql(count)[0][0] == before + (answer.status_code == 201)
    texts = as_text(value)
    assert service.http.get(f"/null_{name}", params={"k": texts}).status_code in (200, 422)
    try:
        path = quote(texts, safe="")
    except UnicodeEncodeError:
        return
    if len(path) < 8000:
        assert service.http.get(f"/id_{name}/{path}").status_code in (200, 404, 422)


@pytest.mark.parametrize("value", ["a", "a:b", '"k":', "\\\\", '\\\\":"'])
def test_a_field_twice_is_refused_whatever_is_in_it(service: Service, value: str) -> None:
    once = json.dumps({"k": value})
    assert service.post("/key_text", k=value).status_code in (200, 201)
    headers = {"Content-Type": "application/json"}
    for body in (f"{once[:-1]}, {once[1:]}", f'{once[:-1]}, "\\u006b" \n: "b"}}'):
        answer = service.http.post("/key_text", content=body, headers=headers)
        assert (answer.status_code, answer.json()["errors"]) == (
            422,
            [{"pointer": "#", "detail": "has a field twice"}],
        )


def test_null_is_one_key(name: str, service: Service) -> None:
    path = f"/null_{name}"
    service.sql(f"DELETE FROM null_{name} WHERE k IS NULL")
    made = send(service, path, {"k": None})
    assert (made.status_code, made.json()["k"]) == (201, None)
    for body in ({}, {"k": None}):
        again = send(service, path, body)
        assert (again.status_code, again.json()) == (200, made.json())
    assert service.sql(f"SELECT count(*) FROM null_{name} WHERE k IS NULL") == [(1,)]


def test_rows_that_no_client_could_have_sent(service: Service) -> None:
    legacy = {
        "date": "infinity",
        "timestamp": "-infinity",
        "timestamptz": "infinity",
        "time": "24:00:00",
        "numeric": "NaN",
    }
    for name, value in legacy.items():
        type_ = KINDS[name].type
        made = service.sql(f"INSERT INTO null_{name} (k) VALUES (%s::{type_}) RETURNING id", value)
        answer = service.http.get(f"/null_{name}/{made[0][0]}")
        expected = value if name in ("time", "numeric") else None
        assert (answer.status_code, answer.json()["k"]) == (200, expected)
        after = {"after": made[0][0] - 1}
        assert service.http.get(f"/null_{name}", params=after).json()["items"] == [answer.json()]


@pytest.mark.long
def test_the_document_tells_the_types(service: Service) -> None:
    answer = service.http.get("/openapi.json")
    document = answer.json()
    schemas = document["components"]["schemas"]
    for name, kind in KINDS.items():
        if f"key_{name}.body" not in schemas:
            continue
        body = schemas[f"attribute_{name}.body"]
        assert body["required"] == ["name", "must"]
        assert kind.rule in body["properties"]["must"]["description"]
        assert "null" in json.dumps(body["properties"]["may"])
        listed = document["paths"][f"/key_{name}"]["get"]["parameters"]
        assert [each["name"] for each in listed] == ["after", "limit", "k"]
    if VALIDATOR.exists():
        said = subprocess.run([VALIDATOR, "-"], input=answer.text, text=True, capture_output=True)
        assert said.stdout == "stdin: OK\n"
