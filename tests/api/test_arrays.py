"""A POST of an array gets or creates the row of each item, all of them or none."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import legacy
from tests.support.adopting import adopt
from tests.support.pgbouncer import PGBOUNCER, pooling
from tests.support.service import LIMIT, Service, serving, sql

CLIENTS = 8

WAYS: dict[str, dict[str, str]] = {
    "pipeline": {},
    "plain": {"PIPELINE": "0"},
    "pooler": {"POOLER": "1"},
}
LONG = [pytest.param(way, marks=pytest.mark.long) for way in ("plain", "pooler")]


@pytest.fixture(scope="module", params=["pipeline", *LONG])
def service(request: pytest.FixtureRequest, new_database: Callable[[], str]) -> Iterator[Service]:
    if request.param == "pooler" and PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    database = new_database()
    with ExitStack() as stack:
        url = database
        if request.param == "pooler":
            url = stack.enter_context(pooling(database)).url
        settings = {"DATABASE_URL": url, "WORKERS": "2", **WAYS[request.param]}
        service = stack.enter_context(serving(**settings))
        service.database = database
        yield service


def new() -> str:
    return str(uuid4())


def names(*given: str) -> list[dict[str, str]]:
    return [{"name": name} for name in given]


def post(service: Service, path: str, items: Any, **headers: str) -> httpx.Response:
    return service.http.post(path, json=items, headers=headers)


def statuses(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["status"] for item in answer.json()]


def count(service: Service, name: str) -> int:
    ((number,),) = service.sql("SELECT count(*) FROM departments WHERE name LIKE %s", f"{name}%")
    return int(number)


@contextmanager
def trigger(service: Service, body: str, when: str) -> Iterator[None]:
    """A trigger with this body in PL/pgSQL, while the block runs."""
    service.sql(
        f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
    )
    try:
        service.sql(f"CREATE TRIGGER meddle {when} EXECUTE FUNCTION meddle()")
        yield
    finally:
        service.sql("DROP FUNCTION meddle CASCADE")


@contextmanager
def failing_first(service: Service, failures: int) -> Iterator[None]:
    """So many attempts fail; the table seen gets the next one's locks, and its lock_timeout."""
    body = (
        f"IF nextval('attempt') <= {failures} THEN RAISE serialization_failure; END IF;"
        " INSERT INTO seen SELECT mode, current_setting('lock_timeout') FROM pg_locks"
        " WHERE pid = pg_backend_pid() AND relation = 'departments'::regclass; RETURN NULL;"
    )
    service.sql("CREATE SEQUENCE attempt")
    service.sql("CREATE TABLE seen (mode text, lock_timeout text)")
    try:
        with trigger(service, body, "AFTER INSERT ON departments"):
            yield
    finally:
        service.sql("DROP TABLE seen")
        service.sql("DROP SEQUENCE attempt")


def test_each_item_is_answered_in_order(service: Service) -> None:
    one, other, third = new(), new(), new()
    known = service.post("/departments", name=other).json()
    answer = post(service, "/departments", names(one, other, one, third))
    assert statuses(answer) == [201, 200, 200, 201]
    rows = [item["row"] for item in answer.json()]
    assert [row["name"] for row in rows] == [one, other, one, third]
    assert rows[1] == known
    assert rows[0] == rows[2]
    assert {item["duplicates"] for item in answer.json()} == {1}
    assert "attempts=1" in answer.headers["Server-Timing"]
    again = post(service, "/departments", names(one, other, one, third))
    assert statuses(again) == [200] * 4
    assert [item["row"] for item in again.json()] == rows


@pytest.mark.parametrize("number", [0, 1, 30, 31, 1000])
def test_as_many_as_there_may_be(service: Service, number: int) -> None:
    prefix = new()
    items = names(*(f"{prefix} {n}" for n in range(number)))
    assert statuses(post(service, "/departments", items)) == [201] * number
    assert statuses(post(service, "/departments", items)) == [200] * number
    assert count(service, prefix) == number


def test_one_more_than_there_may_be_is_refused(service: Service) -> None:
    prefix = new()
    answer = post(service, "/departments", names(*(f"{prefix} {n}" for n in range(1001))))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "#", "detail": "must have at most 1000 items"}]
    assert count(service, prefix) == 0


def test_an_item_that_has_a_field_twice_is_named(service: Service) -> None:
    twice = '{"name": "A", "name": "B"}'
    for body, places in (
        (f'[{{"name": "A"}}, {twice}, {{"name": "A"}}, {twice}]', ["#/1", "#/3"]),
        (f'[{{"name": {twice}}}]', ["#"]),
        (f"[{','.join([twice] * 1001)}]", [f"#/{place}" for place in range(1000)]),
    ):
        headers = {"Content-Type": "application/json"}
        answer = service.http.post("/departments", content=body, headers=headers)
        errors = [{"pointer": each, "detail": "has a field twice"} for each in places]
        assert (answer.status_code, answer.json()["errors"]) == (422, errors)


@pytest.mark.parametrize(
    ("item", "pointer"),
    [
        ({"name": " "}, "#/2/name"),
        ({}, "#/2/name"),
        ({"name": "x", "other": 1}, "#/2"),
        (7, "#/2"),
        (None, "#/2"),
        ([], "#/2"),
        ({"name": "a\0b"}, "#/2/name"),
    ],
)
def test_an_item_that_is_not_valid_refuses_all(service: Service, item: Any, pointer: str) -> None:
    one, other = new(), new()
    answer = post(service, "/departments", [*names(one, other), item])
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert len(answer.json()["errors"]) == 1
    assert count(service, one) + count(service, other) == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[", 400),
        (b"[{}", 400),
        (b'[{"name": "x"}] []', 400),
        (b'[{"name": "x", "name": "y"}]', 422),
        (b"[" * 10_000, 400),
        (b' \n[{"name": "blanks before"}]', 200),
    ],
)
def test_what_is_no_array_of_items(service: Service, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    answer = service.http.post("/departments", content=body, headers=headers)
    assert answer.status_code == status, answer.text


def test_a_parent_that_is_missing_is_named_by_its_item(service: Service) -> None:
    department, name = service.post("/departments", name=new()).json()["id"], new()
    items = [{"department_id": id_, "name": name} for id_ in (department, 0, department, -1)]
    answer = post(service, "/employees", items)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": f"#/{item}/department_id", "detail": "does not exist"} for item in (1, 3)
    ]
    assert service.sql("SELECT FROM employees WHERE name = %s", name) == []


def test_a_parent_that_was_merged_is_the_one_that_was_kept(service: Service) -> None:
    kept, gone = (service.post("/departments", name=new()).json()["id"] for _ in range(2))
    service.sql("DELETE FROM departments WHERE id = %s", gone)
    service.sql(
        "INSERT INTO merged (resource, id, kept, content, pointed)"
        " VALUES ('departments', %s, %s, '{}', '{}')",
        *(str(gone), str(kept)),
    )
    name = new()
    items = [{"department_id": id_, "name": name} for id_ in (gone, kept)]
    answer = post(service, "/employees", items)
    # They have become one key.
    assert statuses(answer) == [201, 200]
    assert {item["row"]["department_id"] for item in answer.json()} == {kept}


def test_duplicates_are_told_and_refused_where_that_is_asked(service: Service) -> None:
    one, other = new(), new()
    service.sql("INSERT INTO departments (name) VALUES (%s), (%s)", one, one)
    answer = post(service, "/departments", names(one, other), Prefer="handling=strict")
    assert statuses(answer) == [412, 201]
    assert [item["duplicates"] for item in answer.json()] == [2, 1]
    lenient = post(service, "/departments", names(one, other))
    assert statuses(lenient) == [200, 200]
    assert [item["row"] for item in lenient.json()] == [item["row"] for item in answer.json()]


def test_the_table_refuses_all_for_one(service: Service) -> None:
    prefix = new()
    service.sql(
        "ALTER TABLE departments ADD CONSTRAINT few CHECK (name NOT LIKE '%% bad') NOT VALID"
    )
    try:
        answer = post(service, "/departments", names(f"{prefix} good", f"{prefix} bad"))
    finally:
        service.sql("ALTER TABLE departments DROP CONSTRAINT few")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#")
    assert count(service, prefix) == 0


@pytest.mark.parametrize(
    "body",
    [
        "NEW.name := lower(NEW.name); RETURN NEW;",
        "IF NEW.name LIKE '%% SWALLOWED' THEN RETURN NULL; END IF; RETURN NEW;",
    ],
)
def test_an_item_that_is_stored_otherwise_is_named(service: Service, body: str) -> None:
    prefix = new().lower()
    with trigger(service, body, "BEFORE INSERT ON departments FOR EACH ROW"):
        answer = post(service, "/departments", names(f"{prefix} a", f"{prefix} SWALLOWED"))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/1")
    assert count(service, prefix) == 0


@pytest.mark.parametrize("size", [1, 5, 40])
@pytest.mark.parametrize("guard", [False, True], ids=["", "guarded"])
def test_arrays_that_race_make_one_row_for_a_key(service: Service, size: int, guard: bool) -> None:
    """Each client sends the same keys, in another order, among single POSTs of them."""
    if guard:
        assert legacy.run(service.database, "guard", "on", "departments")[0] == 0
    try:
        race(service, size)
    finally:
        if guard:
            assert legacy.run(service.database, "guard", "off", "departments")[0] == 0


def race(service: Service, size: int) -> None:
    prefix = new()
    keys = [f"{prefix} {n}" for n in range(size)]
    together = Barrier(CLIENTS)

    def client(number: int) -> list[dict[str, Any]]:
        turned = keys[number % size :] + keys[: number % size]
        with service.client() as http:
            together.wait(LIMIT)
            if number % 4 == 3:
                single = [http.post("/departments", json={"name": name}) for name in turned]
                return [{"status": each.status_code, "row": each.json()} for each in single]
            answer = http.post("/departments", json=names(*turned))
            assert answer.status_code == 200, answer.text
            return list(answer.json())

    with ThreadPoolExecutor(CLIENTS) as clients:
        told = [item for items in clients.map(client, range(CLIENTS)) for item in items]
    assert sorted(item["status"] for item in told) == [200] * size * (CLIENTS - 1) + [201] * size
    assert len({item["row"]["id"] for item in told}) == size
    assert count(service, prefix) == size


@pytest.mark.parametrize(
    ("size", "failures", "locks"),
    [(100, 1, True), (100, 3, True), (30, 1, False), (30, 3, True)],
)
def test_an_array_that_fails_keeps_other_writers_out_but_not_behind_a_pooler(
    service: Service, size: int, failures: int, locks: bool, request: pytest.FixtureRequest
) -> None:
    if "pooler" in request.node.callspec.id:
        locks = False  # the snapshot would be older than the lock
    for _ in range(20):
        prefix = new()
        with failing_first(service, failures):
            answer = post(service, "/departments", names(*(f"{prefix} {n}" for n in range(size))))
            assert statuses(answer) == [201] * size
            seen = service.sql("SELECT * FROM seen")
        if f'"attempts={failures + 1}"' in answer.headers["Server-Timing"]:
            break  # there are more where an insert was late
    else:
        pytest.fail(f"never in {failures + 1} attempts")
    assert dict(seen).get("ShareRowExclusiveLock") == ("100ms" if locks else None)


def test_an_array_that_keeps_other_writers_out_is_never_late(
    service: Service, request: pytest.FixtureRequest
) -> None:
    if "pooler" in request.node.callspec.id:
        pytest.skip("behind a pooler no array keeps other writers out")
    prefix = new()
    keys = names(*(f"{prefix} {n}" for n in range(100)))
    with trigger(service, "PERFORM pg_sleep(0.06); RETURN NULL;", "BEFORE INSERT ON departments"):
        answer = post(service, "/departments", keys)
    assert statuses(answer) == [201] * 100


def test_a_lock_that_is_not_had_at_once_is_done_without(service: Service) -> None:
    """Somebody's transaction has written to the table, and does not end."""
    prefix = new()
    keys = names(*(f"{prefix} {n}" for n in range(100)))
    with failing_first(service, 1), psycopg.connect(service.database) as writer:
        writer.execute("LOCK TABLE departments IN ROW EXCLUSIVE MODE")
        assert statuses(post(service, "/departments", keys)) == [201] * 100


@pytest.mark.parametrize("size", [16384, 2**20])
def test_only_an_array_may_be_large(service: Service, size: int) -> None:
    def padded(body: str, length: int) -> bytes:
        return (body + " " * (length - len(body))).encode()

    headers = {"Content-Type": "application/json"}
    one, many = json.dumps({"name": new()}), json.dumps(names(new()))
    for body, length, status in (
        (one, size, 201 if size == 16384 else 413),
        (one, size + 1, 413),
        (many, size, 200),
        (many, size + 1, 200 if size == 16384 else 413),
    ):
        with service.client() as http:
            answer = http.post("/departments", content=padded(body, length), headers=headers)
            assert answer.status_code == status
            pieces = [padded(body, length)[at : at + 5000] for at in range(0, length, 5000)]
            answer = http.post("/departments", content=iter(pieces), headers=headers)
            assert answer.status_code == (200 if status == 201 else status)


def test_an_item_may_have_as_many_bytes_as_a_body_of_its_own(service: Service) -> None:
    def item(size: int) -> str:
        begin = json.dumps({"name": new()}).removesuffix("}")
        return f"{begin}{' ' * (size - len(begin) - 1)}}}"

    headers = {"Content-Type": "application/json"}
    for last, wrong in ((16384, []), (16385, ["#/0", "#/2"])):
        body = f"[{item(last)}, {item(16384)}, {item(last)}]"
        answer = service.http.post("/departments", content=body, headers=headers)
        if not wrong:
            assert statuses(answer) == [201, 201, 201]
            continue
        assert answer.status_code == 422
        errors = [{"pointer": each, "detail": "is over 16384 bytes"} for each in wrong]
        assert answer.json()["errors"] == errors


# A table of one's own

TABLES = """
CREATE TYPE plan AS ENUM ('free', 'it''s "pro"');
CREATE TABLE items (
    nth uuid PRIMARY KEY DEFAULT gen_random_uuid(), item text NOT NULL, alone numeric(8, 2),
    day date, copies_ timestamptz, plan plan NOT NULL DEFAULT 'free', note varchar(9),
    gone boolean);
"""

# Rows that are equal in this are equal in all but their ids, which are drawn at random.
ORDER = "note, plan, copies_, item"

VALUES = {
    "item": st.sampled_from(["a", "A", 'b,"c', "\\\\", "{}", "NULL", "it's"]),
    "alone": st.sampled_from(["1.5", "1.50", "-7", None]),
    "day": st.sampled_from(["2026-11-25", None]),
}
OTHERS = {
    "copies_": st.sampled_from(["2026-11-25T18:00:27Z", None]),
    "plan": st.sampled_from(["free", 'it\'s "pro"', None]),
    "note": st.sampled_from(["", "null", '"', "{a,b}", None]),
}


@pytest.fixture(scope="module")
def own(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    database, root = new_database(), tmp_path_factory.mktemp("own")
    sql(database, TABLES)
    words = ("--key", "lower(item),alone,day", "--where", "gone IS NOT TRUE", "--keep", ORDER)
    status, said = adopt(database, root, "items", *words)
    assert status == 0, said
    assert legacy.run(database, "init", RESOURCES=str(root))[0] == 0
    with serving(DATABASE_URL=database, RESOURCES=str(root)) as service:
        yield service


@settings(max_examples=20)
@given(
    items=st.lists(st.fixed_dictionaries({**VALUES, **OTHERS}), min_size=1, max_size=12),
    before=st.lists(st.fixed_dictionaries({**VALUES, **OTHERS}), max_size=6),
)
def test_an_array_answers_as_its_items_one_by_one(
    own: Service, items: list[dict[str, Any]], before: list[dict[str, Any]]
) -> None:
    def answers(ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the answers, without the ids, which are drawn at random."""
        own.sql("TRUNCATE items")
        for each in before:
            own.sql(
                "INSERT INTO items (item, alone, day, copies_, plan, note)"
                " VALUES (%s, %s, %s, %s, coalesce(%s::plan, 'free'), %s)",
                *(each[name] for name in ("item", "alone", "day", "copies_", "plan", "note")),
            )
        told = ask()
        places: dict[str, int] = {}
        for each in told:
            each["row"]["id"] = places.setdefault(each["row"]["id"], len(places))
        return told

    def together() -> list[dict[str, Any]]:
        answer = post(own, "/items", items)
        assert answer.status_code == 200, answer.text
        return list(answer.json())

    def alone() -> list[dict[str, Any]]:
        single = [own.http.post("/items", json=item) for item in items]
        return [
            {
                "status": each.status_code,
                "row": each.json(),
                "duplicates": int(each.headers.get("Duplicates", 1)),
            }
            for each in single
        ]

    assert answers(together) == answers(alone)


@pytest.mark.long
def test_a_folder_without_the_files_takes_one_at_a_time(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    for name in ("departments", "employees"):
        words = ("--key", "name", "--attributes", "")
        assert adopt(database, tmp_path, name, *words)[0] == 0
    (tmp_path / "departments" / "select_many.sql").unlink()
    with serving(DATABASE_URL=database, RESOURCES=str(tmp_path)) as service:
        answer = post(service, "/departments", names(new()))
        assert answer.json()["errors"] == [{"pointer": "#", "detail": "must be an object"}]
        assert service.post("/departments", name=new()).status_code == 201
