"""Merge leaves one row for a key and repoints what pointed at the others; undo takes it back."""

import asyncio
import os
import pty
import random
import re
import signal
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import db.way_out.batches
import db.way_out.merge
import db.way_out.undo
from db.connection import Connection
from db.way_out.tally import Item, Tally
from tests.support import legacy
from tests.support.adopting import adopt
from tests.support.legacy import duplicated, everything, fill, teach
from tests.support.roles import as_role, make_role
from tests.support.service import Service, serving, sql, until


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
    """Return the departments' ids and names, and the employees' ids, departments and names."""
    return sql(database, "SELECT id, name FROM departments ORDER BY id") + sql(
        database, "SELECT id, department_id, name FROM employees ORDER BY id"
    )


def merged(database: str) -> list[tuple[object, ...]]:
    return sql(
        database,
        "SELECT resource, id::bigint, kept::bigint FROM merged ORDER BY resource, id::bigint",
    )


# All that a merge of employees may change, and the keys of which some row has a badge.
EMPLOYEES = "SELECT id, name, department_id, created_at, badge FROM employees ORDER BY id"
HAVING = (
    "SELECT DISTINCT departments.name, employees.name FROM employees"
    " INNER JOIN departments ON departments.id = department_id"
    " WHERE badge IS NOT NULL ORDER BY 1, 2"
)

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
        database, "SELECT content, now() - merged_at < '1 minute' FROM merged WHERE id = '2'"
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


@pytest.mark.long
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


def test_a_foreign_key_it_was_taught_is_repointed_and_back(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(monkeypatch)
    insert(database, SALES, STAFF)
    sql(
        database,
        "CREATE TABLE badges (id bigint PRIMARY KEY,"
        " holder bigint REFERENCES employees ON DELETE CASCADE)",
    )
    sql(database, "INSERT INTO badges SELECT id + 10, id FROM employees")
    before = sql(database, "SELECT id, holder FROM badges ORDER BY id")
    tally = asyncio.run(db.way_out.merge.merge(database, None))
    assert (tally.rows, tally.notes) == ({"departments": 2, "employees": 3}, [])
    holders = dict(sql(database, "SELECT id, holder FROM badges"))
    assert holders == {11: 1, 12: 2, 13: 1, 14: 1, 15: 5, 16: 5, 17: 7}
    tally = asyncio.run(db.way_out.undo.undo(database, None))
    assert tally.notes == []
    assert sql(database, "SELECT id, holder FROM badges ORDER BY id") == before


@pytest.mark.long
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
    sql(database, "DELETE FROM employees WHERE id = 2")  # it was in department 3 before the merge
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize("takes", [(), ("--fill", "badge")], ids=["as it is", "with a fill"])
def test_killed_at_any_moment_it_goes_on_where_it_was(
    database: str, takes: tuple[str, ...], tmp_path: Path
) -> None:
    fill(database, 20_000, departments=200)
    sql(database, "ALTER TABLE employees ADD COLUMN badge text")
    sql(database, "UPDATE employees SET badge = id WHERE id %% 3 = 0")
    for name, words in {
        "departments": ("--key", "name"),
        "employees": ("--key", "department_id,name", *takes),
    }.items():
        assert adopt(database, tmp_path, name, *words)[0] == 0
    before = sql(database, EMPLOYEES)
    having = sql(database, HAVING)
    keys = set(sql(database, "SELECT name FROM departments"))
    ids = {(row[0], row[2] is None) for row in everything(database)}
    total = duplicated(database, "employees")
    kills = 0
    while kills < 5:
        gone = sql(database, "SELECT count(*) FROM merged")[0][0]
        enough = gone + random.randrange(1, total // 6)
        with legacy.start(database, "merge", "--apply", RESOURCES=str(tmp_path)) as process:
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
    status, output, errors = legacy.run(database, "merge", "--apply", RESOURCES=str(tmp_path))
    assert status == 0, output + errors
    assert duplicated(database, "departments") == duplicated(database, "employees") == 0
    assert set(sql(database, "SELECT name FROM departments")) == keys
    here = {(row[0], row[2] is None) for row in everything(database)}
    away = {(row[1], row[0] == "departments") for row in merged(database)}
    assert here | away == ids
    assert here & away == set()
    if takes:  # a row that lacked a badge has another one's
        assert sql(database, HAVING) == having
    status, output, errors = legacy.run(database, "merge", "--undo", RESOURCES=str(tmp_path))
    assert status == 0, output + errors
    assert sql(database, EMPLOYEES) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_by_a_signal_it_says_so_in_one_line(database: str, number: signal.Signals) -> None:
    fill(database, 20_000, departments=200)
    with legacy.start(database, "merge", "--apply") as process:
        until(lambda: sql(database, "SELECT FROM merged LIMIT 1") != [])
        process.send_signal(number)
        _, errors = process.communicate()
    assert errors == "merge: ended by a signal, before it was done\n"
    assert process.returncode == 1
    assert legacy.run(database, "merge", "--apply")[0] == 0
    assert duplicated(database, "departments") == duplicated(database, "employees") == 0


def test_a_lost_connection_is_replaced_without_a_word(database: str) -> None:
    fill(database, 4000, departments=50)
    total = duplicated(database, "departments")

    def gone() -> int:
        return int(sql(database, "SELECT count(*) FROM merged")[0][0])

    def kill() -> bool:
        """Kill the session that has a batch under way, if there is one; return whether it was."""
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
            " current_database() AND application_name = 'onerow merge' AND query ~ 'these_pairs'"
            " AND xact_start IS NOT NULL"
        )
        return sql(database, query) == [(True,)]

    with legacy.start(database, "merge", "--apply") as process:
        until(lambda: (gone() > 0 and kill()) or process.poll() is not None)
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, ""), output
    told = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) rows", output)]
    assert sum(told) == gone() > total
    assert duplicated(database, "departments") == duplicated(database, "employees") == 0


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
        except OSError:  # Linux tells so that the other end is closed
            pass
    os.close(terminal)
    assert process.returncode == 0
    assert re.search(rb"employees: 100%.*\[\d\d:\d\d<\d\d:\d\d, +[\d.]+ keys/s\]", shown), shown


# What the service answers after a merge


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


# Rows that a merge could lose


KEEP = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"


@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
def test_a_row_that_a_trigger_keeps_in_place_is_not_lost(database: str, event: str) -> None:
    insert(database, SALES, STAFF)
    sql(database, KEEP)
    sql(
        database,
        f"CREATE TRIGGER keep BEFORE {event} ON employees FOR EACH ROW"
        " WHEN (OLD.name IN ('Grace', 'Ada')) EXECUTE FUNCTION keep()",
    )
    before = everything(database)
    status, output, _ = legacy.run(database, "merge", "--apply")
    assert status == 1
    assert "departments 1 stays as it is" in output
    assert everything(database) == before


@pytest.mark.long
def test_a_row_that_a_policy_hides_is_not_lost(database: str) -> None:
    insert(database, SALES, STAFF)
    make_role(database, "onerow_test_merger")
    sql(database, "GRANT ALL ON ALL TABLES IN SCHEMA public TO onerow_test_merger")
    sql(database, "ALTER TABLE employees ENABLE ROW LEVEL SECURITY")
    sql(database, "CREATE POLICY shown ON employees USING (name <> 'Grace')")
    before = everything(database)
    status, _, errors = legacy.run(as_role(database, "onerow_test_merger"), "merge", "--apply")
    assert status == 1
    assert "row-level security" in errors
    assert everything(database) == before


def test_rows_without_a_key_are_left_alone(database: str) -> None:
    for table in ("departments", "employees"):
        sql(database, f"ALTER TABLE {table} ALTER name DROP NOT NULL")
    sql(database, "INSERT INTO departments (name) VALUES ('A'), ('A'), (NULL), (NULL)")
    sql(
        database,
        "INSERT INTO employees (department_id, name)"
        " VALUES (1, NULL), (2, NULL), (2, NULL), (3, 'Ada'), (4, 'Ada')",
    )
    assert "employees: 0 keys" in merge(database)
    assert merge(database, "--apply") == "departments: 1 rows merged.\nemployees: 0 rows merged.\n"
    assert sql(database, "SELECT department_id FROM employees ORDER BY id") == [
        (1,),
        (1,),
        (1,),
        (3,),
        (4,),
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    "alteration",
    [
        "RENAME badge TO card",
        "ADD COLUMN loud text GENERATED ALWAYS AS (upper(name)) STORED",
        "ADD COLUMN needed integer NOT NULL DEFAULT 1",
    ],
)
def test_a_row_that_would_not_come_back_whole_stays_merged(database: str, alteration: str) -> None:
    sql(database, "ALTER TABLE employees ADD COLUMN badge text DEFAULT 'none'")
    insert(database, ["Sales"], [(1, "Ada"), (1, "Ada")])
    merge(database, "--apply")
    sql(database, f"ALTER TABLE employees {alteration}")
    status, output, _ = legacy.run(database, "merge", "--undo")
    assert status == 1
    assert "employees 2 stays as it is" in output
    assert merged(database) == [("employees", 2, 1)]


@pytest.mark.long
def test_a_locked_row_holds_up_its_own_key_only(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.way_out.batches, "STAGES", ("batch", "alone", "writers locked out"))
    insert(database, [f"{n // 2}" for n in range(20)], [])
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    with (
        serving(DATABASE_URL=database) as service,
        psycopg.connect(database) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        connection.execute("SELECT FROM departments WHERE id = 20 FOR UPDATE")
        merging = pool.submit(asyncio.run, db.way_out.merge.merge(database, None))
        statuses = set()
        for turn in count():
            answer = service.post("/employees", name=f"{turn}", department_id=turn % 18 + 1)
            statuses.add(answer.status_code)
            if merging.done():
                break
        assert statuses == {201}
        assert [note.split(":")[0] for note in merging.result().notes] == [
            "departments 19 stays as it is"
        ]
        assert duplicated(database, "departments") == 1
    # After each try that kept the writers out they had time to go on.
    assert sum(each >= db.way_out.batches.SECONDS / 2 for each in pauses) >= 2
    merge(database, "--apply")
    assert duplicated(database, "departments") == 0


def test_without_a_foreign_key_it_refuses(database: str) -> None:
    insert(database, SALES, STAFF)
    sql(database, "ALTER TABLE employees DROP CONSTRAINT employees_department_id_fkey")
    for options in (["--apply"], []):
        status, _, errors = legacy.run(database, "merge", *options)
        assert status == 1
        assert "without a foreign key employees.department_id" in errors
        assert errors.endswith("is gone: run the same `python -m db adopt` again\n")
    assert merged(database) == []


@pytest.mark.long
def test_a_limit_that_ends_it_hides_no_note(database: str) -> None:
    insert(database, ["Sales"], [(1, "Ada"), (1, "Ada"), (1, "Alan"), (1, "Alan")])
    sql(database, KEEP)
    sql(
        database,
        "CREATE TRIGGER keep BEFORE DELETE ON employees FOR EACH ROW"
        " WHEN (OLD.id = 2) EXECUTE FUNCTION keep()",
    )
    status, output, _ = legacy.run(database, "merge", "--apply", "--limit", "2")
    assert (status, "employees 1 stays as it is" in output) == (1, True)
    assert legacy.run(database, "merge", "--limit", "2")[0] == 2


@pytest.mark.long
@pytest.mark.parametrize("guard", ["on", "off"])
def test_a_large_department_is_merged_under_traffic_to_it(database: str, guard: str) -> None:
    insert(database, ["Sales", "Sales", "Research"], [])
    sql(
        database,
        "INSERT INTO employees (department_id, name)"
        " SELECT 2, 'n ' || n FROM generate_series(1, 10000) AS n",
    )
    legacy.run(database, "guard", guard)
    with serving(DATABASE_URL=database, WORKERS="2") as service, ThreadPoolExecutor() as pool:
        done = threading.Event()

        def client(number: int) -> set[int]:
            statuses = set()
            with service.client() as http:
                for turn in count():
                    body = {"name": f"{number} {turn}", "department_id": turn % 3 + 1}
                    statuses.add(http.post("/employees", json=body).status_code)
                    if done.is_set():
                        return statuses
            raise AssertionError

        clients = [pool.submit(client, number) for number in range(6)]
        try:
            merge(database, "--apply")
        finally:
            done.set()
        assert [one.result() for one in clients] == [{201}] * 6
    assert duplicated(database, "departments") == 0


@pytest.mark.long
def test_with_writers_locked_out_nothing_conflicts(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A writer commits into the department each time the merge has begun, so that only a merge that
    # begins with all writers shut out gets to its end.
    insert(database, ["Sales", "Sales"], [(2, "Ada")])
    legacy.run(database, "guard", "on")  # without the guard, merge shuts out writers from the start
    merge_keys = db.way_out.merge.merge_keys
    stages: list[str] = []

    async def disturbed(connection: Connection, items: list[Item], but: list[str] | None) -> Tally:
        await connection.execute("SELECT FROM employees WHERE department_id = 2")
        try:
            brief = make_conninfo(database, options="-c lock_timeout=50")
            new = f"new {len(stages)}"
            sql(brief, "INSERT INTO employees (department_id, name) VALUES (2, %s)", new)
            stages.append("disturbed")
        except psycopg.errors.LockNotAvailable:
            stages.append("alone at last")
        return await merge_keys(connection, items, but)

    monkeypatch.setattr(db.way_out.merge, "merge_keys", disturbed)
    tally = asyncio.run(db.way_out.merge.merge(database, None))
    assert tally.notes == []
    assert {"disturbed", "alone at last"} == set(stages)
    assert duplicated(database, "departments") == 0


def test_a_row_that_a_trigger_keeps_out_stays_merged(database: str) -> None:
    insert(database, ["Sales"], [(1, "Ada"), (1, "Ada")])
    merge(database, "--apply")
    sql(database, KEEP)
    sql(
        database,
        "CREATE TRIGGER keep BEFORE INSERT ON employees FOR EACH ROW EXECUTE FUNCTION keep()",
    )
    status, output, _ = legacy.run(database, "merge", "--undo")
    assert (status, "employees 2 stays as it is" in output) == (1, True)
    assert "would not be as before: if a trigger is why, disable it, and undo again" in output
    assert merged(database) == [("employees", 2, 1)]


def test_a_column_with_the_tables_name_is_one_of_the_row(database: str) -> None:
    sql(database, "ALTER TABLE employees ADD COLUMN employees integer DEFAULT 4")
    insert(database, ["Sales"], [(1, "Ada"), (1, "Ada")])
    merge(database, "--apply")
    assert sql(database, "SELECT content->>'name', content->>'employees' FROM merged") == [
        ("Ada", "4")
    ]


@pytest.mark.long
def test_a_value_that_json_does_not_hold_stays_where_it_is(database: str) -> None:
    sql(database, "ALTER TABLE employees ADD COLUMN odd integer[]")
    insert(database, ["Sales"], [(1, "Ada"), (1, "Ada")])
    sql(database, "UPDATE employees SET odd = '[5:6]={1,2}' WHERE id = 2")
    status, output, _ = legacy.run(database, "merge", "--apply")
    assert (status, "JSON does not hold" in output) == (1, True)
    assert merged(database) == []


@pytest.mark.long
def test_without_the_rights_it_ends_at_once(database: str) -> None:
    insert(database, ["Sales"], [(1, f"{n // 2}") for n in range(40)])
    sql(database, "DROP TABLE merged")
    status, output, errors = legacy.run(database, "merge", "--apply")
    assert status == 1
    assert "there is no table merged" in errors
    assert "stays as it is" not in output


def test_a_row_put_back_between_two_looks_is_found(service: Service) -> None:
    with psycopg.connect(service.database) as undo, ThreadPoolExecutor(1) as pool:
        undo.execute("LOCK TABLE merged IN ACCESS EXCLUSIVE MODE")
        answer = pool.submit(service.http.get, "/departments/4")
        until(lambda: service.sql("SELECT FROM pg_locks WHERE NOT granted") != [])
        undo.execute("INSERT INTO departments (id, name) VALUES (4, 'Sales')")
        undo.execute("DELETE FROM merged WHERE resource = 'departments' AND id = '4'")
        undo.commit()
        assert answer.result().status_code == 200


def test_a_foreign_key_that_someone_has_added_is_refused_at_once(service: Service) -> None:
    sql(service.database, "CREATE TABLE teams (id bigint PRIMARY KEY)")
    sql(service.database, "ALTER TABLE employees ADD team bigint REFERENCES teams")
    sql(service.database, "ALTER TABLE employees ALTER team SET DEFAULT 7")
    response = service.post("/employees", name="Barbara", department_id=1)
    assert response.status_code == 422
    # It is tried once more, and on a busy machine again where an insert came too late.
    assert re.search(r'attempts=[2-9]"', response.headers["server-timing"])
