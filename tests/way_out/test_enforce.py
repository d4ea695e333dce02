"""Enforce adds the unique constraint, whatever an earlier run left behind."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

import db.way_out.enforce
from db.way_out import change
from tests.support import legacy
from tests.support.adopting import commands
from tests.support.legacy import fill
from tests.support.service import serving, sql, until


def enforce(database: str) -> str:
    status, output, errors = legacy.run(database, "enforce")
    assert status == 0, output + errors
    return output


def constraints(database: str) -> list[tuple[object, ...]]:
    """Return the unique constraints, and whether each one's index is valid."""
    return sql(
        database,
        "SELECT conname::text, pg_get_constraintdef(pg_constraint.oid), indisvalid"
        " FROM pg_constraint JOIN pg_index ON indexrelid = conindid"
        " WHERE contype = 'u' AND connamespace = 'public'::regnamespace ORDER BY conname",
    )


CONSTRAINTS = [
    ("departments_key", "UNIQUE (name)", True),
    ("employees_key", "UNIQUE (department_id, name)", True),
]


def index(database: str, name: str = "employees_key") -> list[tuple[object, ...]]:
    return sql(database, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", name)


def duplicate(database: str) -> None:
    sql(database, "INSERT INTO departments (name) VALUES ('Sales')")
    sql(
        database,
        "INSERT INTO employees (department_id, name) VALUES (1, 'Ada'), (1, 'Ada'), (1, 'Alan')",
    )


def test_it_adds_the_constraints_and_turns_the_guard_off(database: str) -> None:
    legacy.run(database, "guard", "on")
    enforce(database)
    assert constraints(database) == CONSTRAINTS
    status, output, _ = legacy.run(database, "guard", "status")
    assert (status, output.count("the guard is off")) == (1, 2)
    enforce(database)
    assert constraints(database) == CONSTRAINTS


def test_it_refuses_while_there_are_duplicates_and_names_them(database: str) -> None:
    duplicate(database)
    legacy.run(database, "guard", "on")
    status, _, errors = legacy.run(database, "enforce")
    assert status == 1
    assert '{"name": "Ada", "department_id": 1}' in errors
    # The departments get their constraint all the same. The employees' guard stays on.
    assert constraints(database) == CONSTRAINTS[:1]
    assert "employees: the guard is on." in legacy.run(database, "guard", "status")[1]


@pytest.mark.long
def test_it_removes_what_a_failed_build_left(database: str) -> None:
    duplicate(database)
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(
            database,
            "CREATE UNIQUE INDEX CONCURRENTLY employees_key ON employees (department_id, name)",
        )
    assert index(database) == [(False,)]
    legacy.run(database, "merge", "--apply")
    assert "INVALID" in enforce(database)
    assert constraints(database) == CONSTRAINTS


def test_duplicates_that_come_while_it_builds_are_named_and_nothing_is_left(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = db.way_out.enforce.refuse_duplicates

    def too_early(connection: change.Session, resource: str) -> None:
        refuse(connection, resource)
        if resource == "employees":
            duplicate(database)
            monkeypatch.undo()

    monkeypatch.setattr(db.way_out.enforce, "refuse_duplicates", too_early)
    with (
        change.connect(database, "enforce") as connection,
        pytest.raises(change.Refused, match="Ada"),
    ):
        db.way_out.enforce.enforce(connection)
    assert index(database) == []
    assert constraints(database) == CONSTRAINTS[:1]


@pytest.mark.parametrize(
    "other",
    [
        "CREATE UNIQUE INDEX employees_key ON employees (name)",
        "CREATE UNIQUE INDEX employees_key ON employees (department_id, name) WHERE id > 5",
        "CREATE INDEX employees_key ON employees (department_id, name)",
    ],
)
def test_another_index_of_that_name_is_not_taken_for_it(database: str, other: str) -> None:
    sql(database, other)
    status, _, errors = legacy.run(database, "enforce")
    assert status == 1
    assert "employees_key" in errors
    assert index(database) == [(True,)]


def test_a_key_that_does_not_fit_an_index_is_an_error_and_nothing_is_left(database: str) -> None:
    sql(
        database,
        "INSERT INTO departments (name)"
        " SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n",
    )
    status, _, errors = legacy.run(database, "enforce")
    assert status == 1
    assert "index row" in errors
    assert index(database, "departments_key") == []


@pytest.mark.long
def test_it_waits_for_another_enforce(database: str) -> None:
    with change.connect(database, "enforce") as first:
        assert change.ask(first, "way_out/turn")[0]["mine"]
        with legacy.start(database, "enforce") as second:
            assert second.stdout is not None
            assert (
                second.stdout.readline() == "Waiting for another init, guard or enforce to end.\n"
            )
            assert constraints(database) == []
            first.close()
            assert second.wait() == 0
    assert constraints(database) == CONSTRAINTS


def started(database: str) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE application_name = 'onerow enforce'"
    return sql(database, query + " AND datname = current_database()") != []


# The moments come in this order, so that each run gets further than the one before.
MOMENTS: dict[str, Callable[[str], bool]] = {
    "it has connected": started,
    "the first index is there": lambda database: index(database, "departments_key") != [],
    "the second index is there": lambda database: index(database) != [],
    "the second index is valid": lambda database: index(database) == [(True,)],
    "the first constraint is there": lambda database: constraints(database) != [],
    "both constraints are there": lambda database: len(constraints(database)) == 2,
}


@pytest.mark.long
@pytest.mark.parametrize("backend", ["its session goes on", "its session ends too"])
def test_killed_at_any_moment_it_may_run_again(database: str, backend: str) -> None:
    fill(database, 20_000, departments=200)
    legacy.run(database, "merge", "--apply")
    legacy.run(database, "guard", "on")
    for moment in MOMENTS:
        with legacy.start(database, "enforce") as process:
            until(lambda m=moment: MOMENTS[m](database) or process.poll() is not None)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
        if backend == "its session ends too":
            sql(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'onerow enforce' AND datname = current_database()",
            )
    enforce(database)
    assert constraints(database) == CONSTRAINTS
    assert sql(database, "SELECT FROM pg_index WHERE NOT indisvalid") == []
    assert legacy.run(database, "guard", "status")[1].count("off") == 2


def test_the_service_answers_as_before(database: str) -> None:
    with serving(DATABASE_URL=database) as service:
        first = service.post("/departments", name="Sales")
        enforce(database)
        again = service.post("/departments", name="Sales")
        assert (first.status_code, again.status_code) == (201, 200)

        # PostgreSQL knows of no conflict with a creator that is not serializable. The service gets
        # 23505 for its row, and finds it.
        with psycopg.connect(database) as other, ThreadPoolExecutor(1) as pool:
            other.execute("INSERT INTO employees (department_id, name) VALUES (1, 'Ada')")
            answer = pool.submit(service.post, "/employees", name="Ada", department_id=1)
            until(
                lambda: (
                    service.sql(
                        "SELECT FROM pg_stat_activity WHERE application_name = 'onerow'"
                        " AND datname = current_database() AND wait_event_type = 'Lock'"
                    )
                    != []
                )
            )
            other.commit()
            assert (answer.result().status_code, answer.result().json()["name"]) == (200, "Ada")


@pytest.mark.parametrize(
    ("key", "told", "mended"),
    [
        ("code", "constraint", "ALTER TABLE codes DROP CONSTRAINT codes_key"),
        ("lower(code)", "index", "DROP INDEX codes_key"),
    ],
)
def test_undo_says_what_is_in_its_way(
    key: str, told: str, mended: str, database: str, tmp_path: Path
) -> None:
    sql(database, "CREATE TABLE codes (id int PRIMARY KEY, code text NOT NULL)")
    sql(database, "INSERT INTO codes VALUES (1, 'a'), (2, 'a')")
    run = commands(database, tmp_path, "codes", "--key", key)
    run("adopt")
    run("init")
    run("merge", "--apply")
    run("enforce")
    said = run("merge", "--undo", ends=1)
    assert said.endswith(f"merge: codes: codes_key refuses duplicates: drop that {told} first\n")
    sql(database, mended)
    run("merge", "--undo")
    assert sql(database, "SELECT count(*) FROM codes") == [(2,)]
