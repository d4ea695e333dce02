"""Merge and its undo: one row a key stays, what pointed at the others points at it."""

import os
import pty
import random
import re
import signal
import termios
from collections.abc import Iterator

import pytest

from tests import legacy
from tests.legacy import duplicated, everything, fill
from tests.service import Service, serving, sql, until


def merge(database: str, *options: str) -> str:
    status, output, errors = legacy.run(database, "merge", *options)
    assert status == 0, output + errors
    return output


def insert(database: str, departments: list[str], employees: list[tuple[int, str]]) -> None:
    for name in departments:
        sql(database, "INSERT INTO departments (name) VALUES (%s)", name)
    for department, name in employees:
        sql(
            database,
            "INSERT INTO employees (department_id, name) VALUES (%s, %s)",
            department,
            name,
        )


def rows(database: str) -> list[tuple[object, ...]]:
    """The departments' ids and names, and the employees' ids, departments and names."""
    return sql(database, "SELECT id, name FROM departments ORDER BY id") + sql(
        database, "SELECT id, department_id, name FROM employees ORDER BY id"
    )


def merged(database: str) -> list[tuple[object, ...]]:
    return sql(database, "SELECT resource, id, kept FROM merged ORDER BY resource, id")


SALES = ["Sales", "Research", "Sales", "Sales"]
STAFF = [(1, "Ada"), (3, "Grace"), (3, "Ada"), (4, "Ada"), (3, "Alan"), (1, "Alan"), (2, "Ada")]


@pytest.mark.parametrize("guard", ["on", "off"])
def test_duplicates_of_duplicates(database: str, guard: str) -> None:
    insert(database, SALES, [*STAFF, (3, "Grace")])
    legacy.run(database, "guard", guard)
    output = merge(database, "--apply")
    assert output == "departments: 2 rows merged.\nemployees: 4 rows merged.\n"
    assert rows(database) == [
        (1, "Sales"),
        (2, "Research"),
        (1, 1, "Ada"),
        (2, 1, "Grace"),
        (5, 1, "Alan"),
        (7, 2, "Ada"),
    ]
    assert merged(database) == [
        ("departments", 3, 1),
        ("departments", 4, 1),
        ("employees", 3, 1),
        ("employees", 4, 1),
        ("employees", 6, 5),
        ("employees", 8, 2),
    ]


def test_a_merged_row_is_kept_whole(database: str) -> None:
    sql(database, "ALTER TABLE employees ADD COLUMN badge numeric, ADD COLUMN tags text[]")
    insert(database, ["Sales"], [(1, "Ada"), (1, "Ada")])
    sql(database, "UPDATE employees SET badge = 1.50, tags = '{a,\"b c\",NULL}' WHERE id = 2")
    before = sql(database, "SELECT created_at FROM employees WHERE id = 2")
    merge(database, "--apply")
    ((content, when),) = sql(
        database, "SELECT content, now() - merged_at < '1 minute' FROM merged WHERE id = 2"
    )
    assert when
    assert (content["badge"], content["tags"]) == (1.5, ["a", "b c", None])
    merge(database, "--undo")
    assert (
        sql(database, "SELECT created_at FROM employees WHERE badge::text = '1.50' AND id = 2")
        == before
    )


def test_without_apply_it_shows_what_apply_then_does(database: str) -> None:
    fill(database, 5000, departments=50)
    before = everything(database)
    plan = merge(database)
    assert everything(database) == before
    assert merged(database) == []
    told = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) rows would go", plan)]
    done = [
        int(number.replace(",", ""))
        for number in re.findall(r"([\d,]+) rows merged", merge(database, "--apply"))
    ]
    assert told == done
    assert done[0] == 10
    assert done[1] > 1000
    assert "0 rows would go" in merge(database)


def test_limit_merges_so_many_keys(database: str) -> None:
    fill(database, 2000, departments=50)
    before = [duplicated(database, name) for name in ("departments", "employees")]
    merge(database, "--apply", "--limit", "7")
    assert duplicated(database, "departments") == before[0] - 7
    merge(database, "--apply", "--limit", "53")
    assert duplicated(database, "departments") == 0
    left = duplicated(database, "employees")
    merge(database, "--apply", "--limit", "1")
    assert 0 < duplicated(database, "employees") < left
    status, _, errors = legacy.run(database, "merge", "--apply", "--limit", "0")
    assert status == 2
    assert "--limit" in errors


@pytest.mark.parametrize("action", ["CASCADE", "RESTRICT", "SET NULL", "NO ACTION"])
@pytest.mark.parametrize("resource", ["departments", "employees"])
def test_a_foreign_key_of_someone_else_stops_it(database: str, resource: str, action: str) -> None:
    insert(database, SALES, STAFF)
    sql(
        database,
        f"CREATE TABLE badges (holder bigint REFERENCES {resource} ON DELETE {action})",
    )
    sql(database, "INSERT INTO badges VALUES (3)")
    before = everything(database)
    for options in (["--apply"], []):
        status, _, errors = legacy.run(database, "merge", *options)
        assert status == 1
        assert "badges.holder" in errors
    assert everything(database) == before
    assert sql(database, "SELECT holder FROM badges") == [(3,)]
    assert merged(database) == []


def test_undo_brings_everything_back(database: str) -> None:
    fill(database, 3000, departments=50)
    before = everything(database)
    merge(database, "--apply", "--limit", "20")
    merge(database, "--apply")
    assert everything(database) != before
    merge(database, "--undo", "--limit", "100")
    merge(database, "--undo")
    assert everything(database) == before
    assert merged(database) == []


def test_undo_says_what_it_cannot_bring_back(database: str) -> None:
    insert(database, SALES, STAFF)
    merge(database, "--apply")
    sql(database, "DELETE FROM employees WHERE id = 2")  # pointed at department 3 before
    sql(database, "INSERT INTO employees (id, department_id, name) VALUES (4, 2, 'New')")
    status, output, errors = legacy.run(database, "merge", "--undo")
    assert status == 1, output + errors
    assert "departments 3 is back, but 1 of the 2 rows of employees.department_id" in output
    assert "employees 4 stays as it is: duplicate key value" in output
    assert merged(database) == [("employees", 4, 1)]
    assert sql(database, "SELECT id, name FROM employees WHERE department_id = 3 ORDER BY id") == [
        (3, "Ada"),
        (5, "Alan"),
    ]


def test_undo_refuses_while_something_refuses_duplicates(database: str) -> None:
    insert(database, ["Sales", "Sales"], [])
    merge(database, "--apply")
    legacy.run(database, "guard", "on")
    status, _, errors = legacy.run(database, "merge", "--undo")
    assert (status, "guard off" in errors) == (1, True)
    assert legacy.run(database, "enforce")[0] == 0
    status, _, errors = legacy.run(database, "merge", "--undo")
    assert (status, "departments_key" in errors) == (1, True)
    assert merged(database) == [("departments", 2, 1)]


def test_a_row_that_cannot_go_is_named_and_the_others_are_merged(database: str) -> None:
    insert(database, ["Sales"], [(1, "Ada"), (1, "Ada"), (1, "Alan"), (1, "Alan")])
    sql(
        database,
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE 'not this one'; END $$",
    )
    sql(
        database,
        "CREATE TRIGGER keep BEFORE DELETE ON employees FOR EACH ROW"
        " WHEN (OLD.id = 2) EXECUTE FUNCTION keep()",
    )
    status, output, _ = legacy.run(database, "merge", "--apply")
    assert status == 1
    assert "employees 1 stays as it is: not this one" in output
    assert merged(database) == [("employees", 4, 3)]


def test_a_key_with_very_many_rows_and_a_department_with_very_many_employees(
    database: str,
) -> None:
    insert(database, ["Sales", "Sales"], [])
    sql(
        database,
        "INSERT INTO employees (department_id, name)"
        " SELECT 1, 'Ada' FROM generate_series(1, 10000)"
        " UNION ALL SELECT 2, 'n ' || n FROM generate_series(1, 10000) AS n",
    )
    merge(database, "--apply")
    assert sql(database, "SELECT count(*), min(department_id) FROM employees") == [(10001, 1)]
    assert sql(database, "SELECT count(*) FROM merged") == [(10000,)]


def test_killed_at_any_moment_it_goes_on_where_it_was(database: str) -> None:
    fill(database, 20_000, departments=200)
    keys = set(sql(database, "SELECT name FROM departments"))
    ids = {(row[0], row[2] is None) for row in everything(database)}
    total = duplicated(database, "employees")
    kills = 0
    while kills < 5:
        gone = sql(database, "SELECT count(*) FROM merged")[0][0]
        enough = gone + random.randrange(1, total // 6)
        with legacy.start(database, "merge", "--apply") as process:
            until(
                lambda n=enough: (  # type: ignore[misc]
                    sql(database, "SELECT count(*) FROM merged")[0][0] >= n
                    or process.poll() is not None
                )
            )
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            break
        kills += 1
    assert kills > 1
    merge(database, "--apply")
    assert duplicated(database, "departments") == duplicated(database, "employees") == 0
    assert set(sql(database, "SELECT name FROM departments")) == keys
    here = {(row[0], row[2] is None) for row in everything(database)}
    away = {(row[1], row[0] == "departments") for row in merged(database)}
    assert here | away == ids
    assert here & away == set()


def test_the_progress_bar_tells_rate_and_time_left(database: str) -> None:
    fill(database, 2000, departments=50)
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    with legacy.start(database, "merge", "--apply", stderr=end) as process:
        os.close(end)
        shown = b""
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:  # how Linux tells that the other end is closed
            pass
    os.close(terminal)
    assert process.returncode == 0
    assert re.search(rb"employees: 100%.*\[\d\d:\d\d<\d\d:\d\d, +[\d.]+ keys/s\]", shown), shown


# What the service answers then.


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    insert(database, SALES, STAFF)
    merge(database, "--apply")
    with serving(DATABASE_URL=database) as service:
        yield service


def test_a_merged_id_redirects_to_the_kept_one(service: Service) -> None:
    for path, target in (("/departments/4", "/departments/1"), ("/employees/6", "/employees/5")):
        response = service.http.get(path)
        assert (response.status_code, response.headers["location"]) == (308, target)
        followed = service.http.get(path, follow_redirects=True)
        assert (followed.status_code, followed.json()["id"]) == (200, int(target.rsplit("/")[-1]))
    assert service.http.head("/departments/4").status_code == 308
    assert service.http.get("/departments/99").status_code == 404
    assert service.http.delete("/departments/4").status_code == 404


def test_a_row_merged_twice_redirects_to_the_last_kept(service: Service) -> None:
    sql(service.database, "INSERT INTO departments (id, name) VALUES (0, 'Sales')")
    merge(service.database, "--apply")
    assert service.http.get("/departments/4").headers["location"] == "/departments/0"


def test_a_merged_department_still_finds_and_takes_its_employees(service: Service) -> None:
    response = service.post("/employees", name="Ada", department_id=4)
    assert (response.status_code, response.json()["id"]) == (200, 1)
    response = service.post("/employees", name="Barbara", department_id=4)
    assert (response.status_code, response.json()["department_id"]) == (201, 1)
    assert response.headers["location"] == f"/employees/{response.json()['id']}"
    response = service.http.get("/employees?department_id=4&name=Ada")
    assert response.status_code == 308
    assert response.headers["location"] == "/employees?department_id=1&name=Ada"
    assert service.post("/employees", name="Ada", department_id=99).status_code == 422


def test_without_the_table_merged_it_is_not_ready_and_says_what_to_do(service: Service) -> None:
    sql(service.database, "DROP TABLE merged")
    response = service.http.get("/ready")
    assert (response.status_code, "db init" in response.text) == (503, True)
