"""Tables of the tests' own, served from their folders, on each way to send the statements."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest

from tests.support.folders import Part, quoted, write
from tests.support.pgbouncer import PGBOUNCER, pooling
from tests.support.service import LIMIT, Service, serving, sql

NUMBER = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
NAME = Part("name", "text")

# Names that a column can have. Some would end a string or a name; some are words of SQL or ours.
NAMES = [
    *("E-Mail", "select", "id2", "a.b", "a b", "Straße", "名前", "it's", "a/b", "a~b"),
    *("$1", "100 %", "{x}", "x; DROP TABLE names; --", "after!", "null", "type", "p1", "?", "#"),
    *("'||version()||'", "copies_", "ends «", "ends ”'"),
]

TABLES = f"""
CREATE TABLE accounts ({NUMBER}, name text NOT NULL);
CREATE TABLE countries (code text PRIMARY KEY);
INSERT INTO countries VALUES ('de');
CREATE TABLE tags ({NUMBER}, account_id bigint REFERENCES accounts, name text NOT NULL,
    country text REFERENCES countries, colour text NOT NULL DEFAULT 'red' CHECK (colour <> 'grey'));
CREATE TABLE pairs ({NUMBER}, one bigint NOT NULL REFERENCES accounts,
    other bigint NOT NULL REFERENCES accounts);
CREATE TABLE nodes ({NUMBER}, parent bigint REFERENCES nodes, name text NOT NULL);
CREATE TABLE stays ({NUMBER}, account_id bigint NOT NULL REFERENCES accounts,
    node_id bigint NOT NULL REFERENCES nodes);
CREATE TABLE customers (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "E-Mail" text NOT NULL,
    full_name text, deleted_at timestamptz);
CREATE TABLE users ({NUMBER}, email text NOT NULL, username text UNIQUE);
CREATE TABLE documents (id uuid PRIMARY KEY, title text NOT NULL);
CREATE DOMAIN short AS text CHECK (length(VALUE) < 5);
CREATE TABLE words ({NUMBER}, word short NOT NULL);
"""


def write_all(root: Path) -> None:
    accounts = ["tags.account_id", "pairs.one", "pairs.other", "stays.account_id"]
    write(root, "accounts", [NAME], referred=accounts)
    account = Part("account_id", "bigint", notes=", or NULL")
    country = Part("country", "text", notes=", or NULL")
    colour = Part("colour", "text", notes=", or NULL", default="'red'")
    write(root, "tags", [account, NAME], attributes=[country, colour])
    write(root, "pairs", [Part("one", "bigint"), Part("other", "bigint")])
    parent = Part("parent", "bigint", notes=", or NULL")
    write(root, "nodes", [parent, NAME], referred=["nodes.parent", "stays.node_id"])
    write(root, "stays", [Part("account_id", "bigint"), Part("node_id", "bigint")])
    email = Part("E-Mail", "text", expression="lower({}::text)")
    full_name = Part("full_name", "text", notes=", or NULL")
    write(
        root,
        "customers",
        [email],
        attributes=[full_name],
        id_=Part("id", "uuid"),
        where="deleted_at IS NULL",
    )
    write(root, "words", [Part("word", "text")])
    write(root, "users", [Part("email", "text")], attributes=[Part("username", "text")])
    title, chosen = Part("title", "text"), Part("id", "uuid")
    write(root, "documents", [title], attributes=[chosen], id_=chosen)
    write(root, "names", [Part(each, "text") for each in NAMES[:-4]], attributes=[
        Part(each, "text", notes=", or NULL") for each in NAMES[-4:]
    ])  # fmt: skip


def make_tables(database: str, root: Path) -> None:
    columns = ", ".join(f"{quoted(name)} text" for name in NAMES).replace("%", "%%")
    sql(database, TABLES)
    sql(database, f"CREATE TABLE names ({NUMBER}, {columns})")
    for lookup in root.glob("*/lookup.sql"):
        statement = re.sub("^--.*\n", "", lookup.read_text(), flags=re.MULTILINE)
        sql(database, statement.replace("%", "%%"))


WAYS: dict[str, dict[str, str]] = {
    "pipeline": {},
    "plain": {"PIPELINE": "0"},
    "pooler": {"POOLER": "1"},
}


@pytest.fixture(
    scope="module",
    params=[
        "pipeline",
        *(pytest.param(way, marks=pytest.mark.long) for way in ("plain", "pooler")),
    ],
)
def service(
    request: pytest.FixtureRequest,
    new_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    if request.param == "pooler" and PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    root = tmp_path_factory.mktemp("resources")
    write_all(root)
    database = new_database()
    make_tables(database, root)
    with ExitStack() as stack:
        url = database
        if request.param == "pooler":
            url = stack.enter_context(pooling(database)).url
        given = {"DATABASE_URL": url, "RESOURCES": str(root), **WAYS[request.param]}
        yield stack.enter_context(serving(**given))


def new() -> str:
    return str(uuid4())


def pointers(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [each["pointer"] for each in answer.json()["errors"]]


def count(service: Service, table: str) -> int:
    return int(service.sql(f"SELECT count(*) FROM {table}")[0][0])


def test_null_is_stored_as_null_and_is_one_key(service: Service) -> None:
    name = new()
    made = service.post("/tags", account_id=None, name=name, country=None)
    assert (made.status_code, made.json()["account_id"], made.json()["country"]) == (
        201,
        None,
        None,
    )
    for body in ({"name": name}, {"name": name, "account_id": None}):
        again = service.post("/tags", **body)
        assert (again.status_code, again.json()) == (200, made.json())
    stored = "SELECT account_id IS NULL, country IS NULL FROM tags WHERE name = %s"
    assert service.sql(stored, name) == [(True, True)]
    account = service.post("/accounts", name=name).json()["id"]
    assert service.post("/tags", name=name, account_id=account).status_code == 201


def test_the_word_none_is_a_text(service: Service) -> None:
    service.sql("DELETE FROM tags WHERE name = 'None'")
    assert service.post("/tags", name="None", country=None).json()["country"] is None
    assert pointers(service.post("/tags", name=new(), country="None")) == ["#"]


def test_an_attribute_is_the_default_where_it_is_null_or_left_out(service: Service) -> None:
    for body, stored in (
        ({}, "red"),
        ({"colour": None}, "red"),
        ({"colour": "blue"}, "blue"),
        ({"colour": ""}, ""),
    ):
        name = new()
        made = service.post("/tags", name=name, **body)
        assert (made.status_code, made.json()["colour"]) == (201, stored)
        again = service.post("/tags", name=name, colour="green")
        assert (again.status_code, again.json()) == (200, made.json())


@pytest.mark.parametrize("field", ["name", "country", "colour"])
def test_nul_is_refused(service: Service, field: str) -> None:
    before = count(service, "tags")
    body = {"name": new(), field: "a\0b"}
    assert pointers(service.post("/tags", **body)) == [f"#/{field}"]
    listed = service.http.get("/tags", params={field: "a\0b"})
    assert pointers(listed) == [f"#/{field}"]
    assert count(service, "tags") == before


def test_what_the_table_refuses(service: Service) -> None:
    before = count(service, "tags")
    assert pointers(service.post("/tags", name=new(), colour="grey")) == ["#"]
    # The domain refuses this one, and PostgreSQL does not say for which column.
    assert pointers(service.post("/words", word="abcde")) == ["#"]
    assert service.post("/words", word="abcd").status_code in (200, 201)
    assert count(service, "tags") == before


def test_names_as_the_columns_have_them(service: Service) -> None:
    body = {name: new() for name in NAMES}
    made = service.post("/names", **body)
    assert made.status_code == 201, made.text
    assert {**made.json(), "id": 0} == {"id": 0, **body}
    assert service.post("/names", **body).status_code == 200
    for name in NAMES:
        listed = service.http.get("/names", params={name: body[name], "limit": 1})
        assert listed.json() == {"items": [made.json()], "next": None}, name
    assert service.http.get(made.headers["Location"]).json() == made.json()
    assert count(service, "names") >= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_pointer_leads_to_the_field(service: Service, name: str) -> None:
    """Pointers are URI fragments by RFC 6901: the escapes of the URI are undone first."""
    body: dict[str, Any] = {each: new() for each in NAMES}
    body[name] = 7
    (pointer,) = pointers(service.post("/names", **body))
    assert pointer.isascii()
    assert re.fullmatch(r"#/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*", pointer)
    token = unquote(pointer.removeprefix("#/"))
    assert "/" not in token
    assert token.replace("~1", "/").replace("~0", "~") == name


@pytest.mark.parametrize("name", NAMES[:-4])
def test_a_key_stored_otherwise_is_told_by_its_name(service: Service, name: str) -> None:
    column = quoted(name).replace("%", "%%")
    service.sql(
        "CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN NEW.{column} := 'other'; RETURN NEW; END $$"
    )
    service.sql(
        "CREATE TRIGGER meddle BEFORE INSERT ON names FOR EACH ROW EXECUTE FUNCTION meddle()"
    )
    try:
        (pointer,) = pointers(service.post("/names", **{each: new() for each in NAMES}))
    finally:
        service.sql("DROP TRIGGER meddle ON names")
    token = unquote(pointer.removeprefix("#/"))
    assert token.replace("~1", "/").replace("~0", "~") == name


def test_a_key_by_an_expression_is_answered_as_it_is_stored(service: Service) -> None:
    name = f"{new()}@Example.org"
    made = service.post("/customers", **{"E-Mail": name, "full_name": "Ada"})
    assert (made.status_code, made.json()["E-Mail"]) == (201, name)
    again = service.post("/customers", **{"E-Mail": name.upper(), "full_name": "Eve"})
    assert (again.status_code, again.json()) == (200, made.json())
    listed = service.http.get("/customers", params={"E-Mail": name.lower()})
    assert listed.json()["items"] == [made.json()]
    # A row that is marked as deleted is outside the condition, so it is no copy any more.
    service.sql("UPDATE customers SET deleted_at = now() WHERE id = %s", made.json()["id"])
    anew = service.post("/customers", **{"E-Mail": name})
    assert anew.status_code == 201
    assert anew.json()["id"] != made.json()["id"]


def merge(service: Service, resource: str, id_: int, kept: int) -> None:
    service.sql(f"DELETE FROM {resource} WHERE id = %s", id_)
    service.sql(
        "INSERT INTO merged (resource, id, kept, content, pointed) VALUES (%s, %s, %s, '{}', '{}')",
        *(resource, str(id_), str(kept)),
    )


def test_parents_that_are_resources(service: Service) -> None:
    one, other, kept = (service.post("/accounts", name=new()).json()["id"] for _ in range(3))
    assert pointers(service.post("/pairs", one=0, other=other)) == ["#/one"]
    assert pointers(service.post("/pairs", one=0, other=0)) == ["#/one", "#/other"]
    errors = service.post("/pairs", one=one, other=0).json()["errors"]
    assert errors == [{"pointer": "#/other", "detail": "does not exist"}]
    merge(service, "accounts", other, kept)
    for status in (201, 200):
        answer = service.post("/pairs", one=one, other=other)
        assert (answer.status_code, answer.json()["other"]) == (status, kept)
    listed = service.http.get("/pairs", params={"other": other})
    assert (listed.status_code, listed.headers["Location"]) == (308, f"/pairs?other={kept}")
    # The parent `one` was merged into another row, and the parent `other` is missing.
    assert pointers(service.post("/pairs", one=other, other=0)) == ["#/other"]


def test_parents_of_two_resources_with_the_same_id(service: Service) -> None:
    service.sql("SELECT setval('accounts_id_seq', 1000 + max(id)) FROM nodes")  # above all nodes
    merged, kept = (service.post("/accounts", name=new()).json()["id"] for _ in range(2))
    merge(service, "accounts", merged, kept)
    assert pointers(service.post("/stays", account_id=merged, node_id=merged)) == ["#/node_id"]


def test_a_parent_that_is_optional(service: Service) -> None:
    name = new()
    assert pointers(service.post("/tags", name=name, account_id=0)) == ["#/account_id"]
    assert service.post("/tags", name=name, account_id=None).status_code == 201
    # The account is there, so it is the other foreign key that fails. Its table is no resource, so
    # the service cannot tell which field is wrong.
    account = service.post("/accounts", name=new()).json()["id"]
    assert pointers(service.post("/tags", name=name, account_id=account, country="xx")) == ["#"]
    assert pointers(service.post("/tags", name=new(), country="xx")) == ["#"]
    assert service.post("/tags", name=new(), country="de").status_code == 201


def test_a_table_that_refers_to_itself(service: Service) -> None:
    root = service.post("/nodes", name=new()).json()["id"]
    leaf = service.post("/nodes", name=new(), parent=root)
    assert (leaf.status_code, leaf.json()["parent"]) == (201, root)
    assert pointers(service.post("/nodes", name=new(), parent=0)) == ["#/parent"]
    other = service.post("/nodes", name=new()).json()["id"]
    merge(service, "nodes", other, root)
    moved = service.post("/nodes", name=new(), parent=other)
    assert (moved.status_code, moved.json()["parent"]) == (201, root)


CLIENTS = 8
ROUNDS = 6


def test_another_rows_value_is_refused(service: Service) -> None:
    one, other = new(), new()
    assert service.post("/users", email=one, username=one).status_code == 201
    assert service.post("/users", email=one, username=other).status_code == 200
    assert pointers(service.post("/users", email=other, username=one)) == ["#"]
    assert service.post("/documents", title=one, id=one).status_code == 201
    assert pointers(service.post("/documents", title=other, id=one)) == ["#/id"]


@pytest.mark.parametrize(
    ("resource", "body"),
    [
        ("customers", lambda name, _: {"E-Mail": name, "full_name": "Ada"}),
        ("customers", lambda name, n: {"E-Mail": name.upper() if n % 2 else name}),
        ("tags", lambda name, n: {"name": name, **({"account_id": None} if n % 2 else {})}),
        ("nodes", lambda name, _: {"name": name, "parent": None}),
        # A creator that loses may fail by the constraint of the username, which is not the key.
        ("users", lambda name, _: {"email": name, "username": name}),
        ("documents", lambda name, _: {"title": name, "id": name}),
    ],
)
def test_clients_that_race(
    service: Service, resource: str, body: Callable[[str, int], dict[str, Any]]
) -> None:
    before = count(service, resource)
    together = Barrier(CLIENTS)

    def create(number: int, names: list[str]) -> list[httpx.Response]:
        with service.client() as client:
            answers = []
            for name in names:
                together.wait(LIMIT)
                answers.append(client.post(f"/{resource}", json=body(name, number)))
            return answers

    names = [new() for _ in range(ROUNDS)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        each = list(clients.map(lambda number: create(number, names), range(CLIENTS)))
    for answers in zip(*each, strict=True):
        assert sorted(answer.status_code for answer in answers) == [200] * (CLIENTS - 1) + [201]
        assert len({json.dumps(answer.json()) for answer in answers}) == 1
    assert count(service, resource) == before + ROUNDS
