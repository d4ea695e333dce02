"""Tables with children, partitions and other kinds: refused untouched, or served as any other."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

import db.merge
from db import adoption, change
from db.queries import QUERIES
from tests import legacy
from tests.service import sql

RENAMED = "ALTER TABLE employees RENAME TO staff;"
COLUMNS = "id bigint, department_id bigint, name text, created_at timestamptz"

# What may be done to a database, and what is said of it.
FAMILIES = {
    "a child": (
        "CREATE TABLE contractors (rate integer) INHERITS (employees);"
        " INSERT INTO contractors (id, department_id, name, rate) VALUES (9, 1, 'Ada', 90)",
        "employees has children, whose rows are among its own (contractors)",
    ),
    "a child of departments": (
        "CREATE TABLE branches () INHERITS (departments)",
        "departments has children, whose rows are among its own (branches)",
    ),
    "many children": (
        "DO $$ BEGIN FOR n IN 1..9 LOOP"
        " EXECUTE format('CREATE TABLE of_%s () INHERITS (employees)', n); END LOOP; END $$",
        "(of_1, of_2, of_3 and 6 more)",
    ),
    "a child of another session's own": (
        "CREATE TEMPORARY TABLE passing () INHERITS (employees)",
        "employees has children, whose rows are among its own (",
    ),
    "a parent": (
        "CREATE TABLE people (name text); ALTER TABLE employees ALTER name DROP NOT NULL;"
        " ALTER TABLE employees INHERIT people",
        "employees is a partition or a child of people",
    ),
    "a partition": (
        "ALTER TABLE employees ALTER id DROP IDENTITY;"
        " CREATE TABLE staff (LIKE employees) PARTITION BY RANGE (id);"
        " ALTER TABLE staff ATTACH PARTITION employees DEFAULT",
        "employees is a partition or a child of staff",
    ),
    "partitions": (
        f"{RENAMED} CREATE TABLE employees (LIKE staff INCLUDING ALL) PARTITION BY HASH (id);"
        " CREATE TABLE employees_0 PARTITION OF employees FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "employees is a partitioned table",
    ),
    "no partition": (
        f"{RENAMED} CREATE TABLE employees (LIKE staff) PARTITION BY LIST (department_id)",
        "employees is a partitioned table",
    ),
    "a view": (
        f"{RENAMED} CREATE VIEW employees AS SELECT * FROM staff",
        "employees is a view",
    ),
    "a materialized view": (
        f"{RENAMED} CREATE MATERIALIZED VIEW employees AS SELECT * FROM staff",
        "employees is a materialized view",
    ),
    "a foreign table": (
        f"{RENAMED} CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;"
        f" CREATE FOREIGN TABLE employees ({COLUMNS}) SERVER far",
        "employees is a foreign table",
    ),
}


@pytest.fixture(scope="module")
def duplicated(new_database: Callable[[], str]) -> Callable[[], str]:
    """Makes a database with duplicates and the tables' foreign key."""

    def create() -> str:
        database = new_database()
        sql(database, "INSERT INTO departments (name) VALUES ('Sales'), ('Sales')")
        sql(database, "INSERT INTO employees (department_id, name) VALUES (1, 'Ada'), (1, 'Ada')")
        return database

    return create


def state(database: str) -> list[tuple[object, ...]]:
    """What there is in a database: relations, triggers, functions, and how many rows."""
    rows = sql(
        database,
        "SELECT relname::text, relkind::text FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT tgname, tgrelid::text FROM pg_trigger"
        " UNION ALL SELECT proname, '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " UNION ALL SELECT 'merged', count(*)::text FROM merged"
        " UNION ALL SELECT 'departments', count(*)::text FROM departments"
        " ORDER BY 1, 2",
    )
    return rows


def plan(database: str) -> None:
    with change.connect(database, "merge") as connection:
        db.merge.plan(connection)


def guard(database: str, action: str = "on") -> None:
    with change.connect(database, "guard") as connection:
        adoption.guard(connection, action)


def enforce(database: str) -> None:
    with change.connect(database, "enforce") as connection:
        adoption.enforce(connection)


COMMANDS: dict[str, Callable[[str], object]] = {
    "merge": plan,
    "merge --apply": lambda database: asyncio.run(db.merge.merge(database, None)),
    "merge --undo": lambda database: asyncio.run(db.merge.undo(database, None)),
    "guard on": guard,
    "enforce": enforce,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_refused_before_anything_is_touched(
    family: str, duplicated: Callable[[], str]
) -> None:
    database = duplicated()
    statement, told = FAMILIES[family]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement.encode())
        before = state(database)
        for command, run in COMMANDS.items():
            with pytest.raises(change.Refused) as refusal:
                run(database)
            assert told in str(refusal.value), command
        assert state(database) == before


def test_the_command_ends_with_status_1_and_says_why(duplicated: Callable[[], str]) -> None:
    database = duplicated()
    sql(database, FAMILIES["a child"][0])
    status, output, errors = legacy.run(database, "merge", "--apply")
    assert (status, output) == (1, "")
    assert errors == (
        "merge: employees has children, whose rows are among its own (contractors): merge, guard"
        " and enforce are right for ordinary tables alone, so nothing was changed\n"
    )


def test_a_guard_that_was_on_before_the_child_came_can_be_turned_off(database: str) -> None:
    guard(database)
    sql(database, "CREATE TABLE contractors () INHERITS (employees)")
    guard(database, "status")
    guard(database, "off")
    assert sql(database, "SELECT FROM pg_proc WHERE proname ~ 'guard'") == []


def test_a_child_that_comes_while_it_runs_loses_nothing(
    duplicated: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = duplicated()
    sql(database, FAMILIES["a child"][0])
    monkeypatch.setattr(db.merge, "_check_tables", lambda _: None)  # it was not there then
    tally = asyncio.run(db.merge.merge(database, None))
    assert [note.split(":")[0] for note in tally.notes] == ["employees 1 stays as it is"]
    assert sql(database, "SELECT name, rate FROM contractors") == [("Ada", 90)]
    assert sql(database, "SELECT FROM merged WHERE resource = 'employees'") == []


# Tables that refer to one of ours.


def teach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give merge the files for badges.holder, as the README says."""
    for file in ("repoint", "left", "repoint_back"):
        query = QUERIES[f"adoption/departments/employees.department_id/{file}"]
        taught = query.replace(b"employees", b"badges").replace(b"department_id", b"holder")
        monkeypatch.setitem(QUERIES, f"adoption/employees/badges.holder/{file}", taught)


def test_partitions_that_refer_are_repointed_and_back(
    duplicated: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = duplicated()
    teach(monkeypatch)
    # By the column itself, so that a row that is repointed goes to another partition.
    sql(
        database,
        "CREATE TABLE badges (id bigint, holder bigint REFERENCES employees ON DELETE CASCADE)"
        " PARTITION BY LIST (holder)",
    )
    sql(database, "CREATE TABLE badges_1 PARTITION OF badges FOR VALUES IN (1)")
    sql(database, "CREATE TABLE badges_2 PARTITION OF badges DEFAULT")
    sql(database, "INSERT INTO badges VALUES (11, 1), (12, 2)")
    tally = asyncio.run(db.merge.merge(database, None))
    assert (tally.rows, tally.notes) == ({"departments": 1, "employees": 1}, [])
    assert sql(database, "SELECT id, holder FROM badges_1 ORDER BY id") == [(11, 1), (12, 1)]
    tally = asyncio.run(db.merge.undo(database, None))
    assert tally.notes == []
    assert sql(database, "SELECT id, holder FROM badges ORDER BY id") == [(11, 1), (12, 2)]


@pytest.mark.parametrize("whose", ["the table's", "a partition's"])
def test_a_foreign_key_from_partitions_that_merge_was_not_taught_stops_it(
    whose: str, duplicated: Callable[[], str]
) -> None:
    database = duplicated()
    reference = "FOREIGN KEY (holder) REFERENCES employees ON DELETE CASCADE"
    own, partitions = ("", reference) if whose == "a partition's" else (f", {reference}", "")
    sql(database, f"CREATE TABLE badges (holder bigint{own}) PARTITION BY LIST (holder)")
    inner = f"({partitions})" if partitions else ""
    sql(database, f"CREATE TABLE badges_1 PARTITION OF badges {inner} DEFAULT")
    before = state(database)
    for command in ("merge", "merge --apply"):
        with pytest.raises(change.Refused, match=r"badges(_1)?\.holder"):
            COMMANDS[command](database)
    assert state(database) == before


def test_children_that_refer_without_a_foreign_key_stop_it(
    duplicated: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = duplicated()
    teach(monkeypatch)
    sql(database, "CREATE TABLE badges (id bigint, holder bigint REFERENCES employees)")
    sql(database, "CREATE TABLE old_badges () INHERITS (badges)")
    before = state(database)
    for command in ("merge", "merge --apply", "merge --undo"):
        with pytest.raises(change.Refused, match=r"without its foreign key \(old_badges\)"):
            COMMANDS[command](database)
    assert state(database) == before
