"""A POST for which the table would store another key, or no row, changes nothing and is 422."""

from collections.abc import Iterator

import pytest

from tests.support.legacy import run
from tests.support.service import Service, serving, sql
from tests.support.triggers import make_trigger

LOWER = "NEW.name := lower(trim(NEW.name)); RETURN NEW;"
ELSEWHERE = "INSERT INTO elsewhere VALUES (NEW.name); RETURN NULL;"


@pytest.fixture(params=["1", pytest.param("0", marks=pytest.mark.long)], ids=["pipeline", "plain"])
def service(request: pytest.FixtureRequest, database: str) -> Iterator[Service]:
    sql(database, "INSERT INTO departments (name) VALUES ('research')")
    sql(database, "CREATE TABLE elsewhere (name text)")
    with serving(DATABASE_URL=database, PIPELINE=request.param) as service:
        yield service


def pointers(service: Service, path: str, **body: object) -> list[str]:
    """Send the body twice; return what the errors, the same in both answers, point at."""
    answers = [service.post(path, **body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [422, 422], answers[0].text
    errors = answers[0].json()["errors"]
    assert errors == answers[1].json()["errors"]
    return [error["pointer"] for error in errors]


def count(service: Service, table: str) -> int:
    return int(service.sql(f"SELECT count(*) FROM {table}")[0][0])


@pytest.mark.parametrize("command", ["", "guard on", "enforce"])
def test_a_trigger_that_changes_the_key(command: str, service: Service) -> None:
    if command:
        assert run(service.database, *command.split())[0] == 0
    make_trigger(service.database, "departments", LOWER)
    assert pointers(service, "/departments", name="Ada") == ["#/name"]
    assert count(service, "departments") == 1
    assert service.post("/departments", name="ada").status_code == 201
    assert service.post("/departments", name="ada").status_code == 200
    # With the constraint, PostgreSQL refuses the row before its key is compared.
    (pointer,) = pointers(service, "/departments", name="Ada")
    assert pointer == ("#" if command == "enforce" else "#/name")
    assert count(service, "departments") == 2


@pytest.mark.long
def test_a_trigger_that_changes_another_part_of_the_key(service: Service) -> None:
    make_trigger(service.database, "employees", "NEW.department_id := 1; RETURN NEW;")
    other = service.post("/departments", name="other").json()["id"]
    body = {"department_id": other, "name": "Ada"}
    assert pointers(service, "/employees", **body) == ["#/department_id"]
    assert count(service, "employees") == 0
    assert service.post("/employees", department_id=1, name="Ada").status_code == 201


def test_a_trigger_that_writes_the_row_elsewhere(service: Service) -> None:
    make_trigger(service.database, "departments", ELSEWHERE)
    assert pointers(service, "/departments", name="Ada") == ["#"]
    assert count(service, "departments") == 1
    assert count(service, "elsewhere") == 0
    assert service.post("/departments", name="research").status_code == 200


@pytest.mark.parametrize(
    ("type_", "changed", "kept"),
    [
        ("char(10)", "Ada ", "Ada"),
        ("varchar(5)", "abc   ", "abc"),
        ("varchar(5)", "abcde ", "abcde"),
    ],
)
def test_a_type_that_changes_the_key(type_: str, changed: str, kept: str, service: Service) -> None:
    service.sql(f"ALTER TABLE employees ALTER name TYPE {type_}")
    assert pointers(service, "/employees", department_id=1, name=changed) == ["#/name"]
    assert count(service, "employees") == 0
    for status in (201, 200):
        answer = service.post("/employees", department_id=1, name=kept)
        assert answer.status_code == status


@pytest.mark.parametrize(
    "rule",
    [
        "INSTEAD INSERT INTO elsewhere VALUES (NEW.name)",
        "INSTEAD INSERT INTO elsewhere VALUES (NEW.name) RETURNING 7::bigint, name, now()",
    ],
)
def test_a_rule_that_writes_the_row_elsewhere(rule: str, service: Service) -> None:
    service.sql(f"CREATE RULE meddle AS ON INSERT TO departments DO {rule}")
    for _ in range(2):
        assert service.post("/departments", name="Ada").status_code == 503
    assert count(service, "elsewhere") == 0


@pytest.mark.long
@pytest.mark.parametrize("instead", [False, True])
def test_a_view_that_hides_what_is_written(instead: bool, service: Service) -> None:
    service.sql("ALTER TABLE departments RENAME TO base")
    service.sql("ALTER TABLE base ADD deleted boolean DEFAULT true")
    service.sql(
        "CREATE VIEW departments AS SELECT id, name, created_at FROM base WHERE NOT deleted"
    )
    if instead:
        write = "INSERT INTO base (name) VALUES (lower(NEW.name)); RETURN NEW;"
        make_trigger(service.database, "departments", write, when="INSTEAD OF INSERT")
    for _ in range(2):
        assert service.post("/departments", name="Ada").status_code == 503
    assert count(service, "base") == 1


SAID = ("the insert came too late", "the table kept no row", "the table stored another secret")


@pytest.mark.parametrize("type_", ["integer", "boolean"])
def test_what_a_client_says_is_not_what_the_insert_says(type_: str, service: Service) -> None:
    make_trigger(service.database, "departments", f"PERFORM NEW.name::{type_}; RETURN NEW;")
    for name in SAID:
        answer = service.post("/departments", name=name)
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"pointer": "#", "detail": "is refused by the table"}]


@pytest.mark.long
def test_a_trigger_that_takes_longer_than_an_insert_may(service: Service) -> None:
    make_trigger(service.database, "departments", "PERFORM pg_sleep(0.06); RETURN NEW;")
    answer = service.post("/departments", name="Ada")
    assert answer.status_code == 503
    assert "slow trigger" in answer.json()["detail"]
    assert count(service, "departments") == 1
    assert service.post("/departments", name="research").status_code == 200


STATEMENT = (
    "CREATE TRIGGER each_time AFTER INSERT ON departments FOR EACH STATEMENT EXECUTE FUNCTION {}()"
)


def test_a_trigger_for_each_statement_fires_where_no_row_is_made(
    service: Service, request: pytest.FixtureRequest
) -> None:
    """With PIPELINE=0 it fires for new keys alone, as docs and doctor say."""
    pipeline = "pipeline" in request.node.callspec.id
    service.sql(
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO elsewhere VALUES ('an insert'); RETURN NULL; END $$"
    )
    service.sql(STATEMENT.format("audit"))
    for status in (201, 200, 200):
        assert service.post("/departments", name="Ada").status_code == status
    assert count(service, "elsewhere") == (3 if pipeline else 1)
    assert count(service, "departments") == 2

    service.sql("DROP TRIGGER each_time ON departments")
    service.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'no'; END $$"
    )
    service.sql(STATEMENT.format("refuse"))
    answer = service.post("/departments", name="Ada")
    assert answer.status_code == (422 if pipeline else 200)
