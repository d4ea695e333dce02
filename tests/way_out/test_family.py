"""Tables with children, partitions and other kinds are refused untouched, or served."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import RawCursor

import db.way_out.enforce
import db.way_out.guard
import db.way_out.merge
import db.way_out.plan
import db.way_out.references
import db.way_out.undo
from db.doctor import command as doctor
from db.doctor.check import Check
from db.queries import QUERIES
from db.resources import RESOURCES
from db.schema import apply_schema
from db.settings import Settings
from db.way_out import change
from db.way_out.tally import Tally
from tests.support import legacy
from tests.support.legacy import teach
from tests.support.roles import SERVICE, as_role, make_roles
from tests.support.service import Service, serving, sql

RENAMED = "ALTER TABLE employees RENAME TO staff;"
COLUMNS = "id bigint, department_id bigint, name text, created_at timestamptz"

# Statements that make employees such a table, and what the commands say of it.
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
    """Return a function that makes a database with duplicates in both tables."""

    def create() -> str:
        database = new_database()
        sql(database, "INSERT INTO departments (name) VALUES ('Sales'), ('Sales')")
        sql(database, "INSERT INTO employees (department_id, name) VALUES (1, 'Ada'), (1, 'Ada')")
        return database

    return create


def state(database: str) -> list[tuple[object, ...]]:
    """Return the relations, triggers and functions of a database, and how many rows it has."""
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


ALL = tuple(RESOURCES)


def plan(database: str, names: Iterable[str] = ALL) -> None:
    with change.connect(database, "merge") as connection:
        db.way_out.plan.plan(connection, names)


def apply(database: str, names: Iterable[str] = ALL) -> None:
    refuse(asyncio.run(db.way_out.merge.merge(database, None, names=names)))


def undo(database: str, names: Iterable[str] = ALL) -> None:
    refuse(asyncio.run(db.way_out.undo.undo(database, None, names=names)))


def refuse(tally: Tally) -> None:
    if tally.refused:
        raise change.Refused("; ".join(tally.refused))


def guard(database: str, names: Iterable[str] = ALL, action: str = "on") -> None:
    with change.connect(database, "guard") as connection:
        db.way_out.guard.guard(connection, action, names)


def enforce(database: str, names: Iterable[str] = ALL) -> None:
    with change.connect(database, "enforce") as connection:
        db.way_out.enforce.enforce(connection, names)


COMMANDS: dict[str, Callable[..., object]] = {
    "merge": plan,
    "merge --apply": apply,
    "merge --undo": undo,
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
        resource = told.partition(" ")[0] if told[0] != "(" else "employees"
        for command, run in COMMANDS.items():
            with pytest.raises(change.Refused) as refusal:
                run(database, [resource])
            assert told in str(refusal.value), command
        assert state(database) == before


def test_the_command_ends_with_status_1_and_says_why(duplicated: Callable[[], str]) -> None:
    database = duplicated()
    sql(database, FAMILIES["a child"][0])
    status, output, errors = legacy.run(database, "merge", "--apply", "employees")
    assert (status, output) == (1, "employees: 0 rows merged.\n")
    assert errors == (
        "merge: employees: employees has children, whose rows are among its own (contractors):"
        " merge, guard and enforce are right for ordinary tables alone, so nothing was changed"
        " here\n"
    )


def test_a_guard_that_was_on_before_the_child_came_can_be_turned_off(database: str) -> None:
    guard(database)
    sql(database, "CREATE TABLE contractors () INHERITS (employees)")
    guard(database, action="status")
    guard(database, action="off")
    assert sql(database, "SELECT FROM pg_proc WHERE proname ~ 'guard'") == []


def test_a_child_that_comes_while_it_runs_loses_nothing(
    duplicated: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = duplicated()
    sql(database, FAMILIES["a child"][0])
    # merge looks for children when it begins, which was before this one came.
    monkeypatch.setattr(db.way_out.references, "check_tables", lambda *_: None)
    tally = asyncio.run(db.way_out.merge.merge(database, None))
    assert [note.split(":")[0] for note in tally.notes] == ["employees 1 stays as it is"]
    assert sql(database, "SELECT name, rate FROM contractors") == [("Ada", 90)]
    assert sql(database, "SELECT FROM merged WHERE resource = 'employees'") == []


# Partitioned tables and children that refer to a served table


def test_partitions_that_refer_are_repointed_and_back(
    duplicated: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = duplicated()
    teach(monkeypatch)
    # The partitions go by the column that is repointed, so that its row goes to another one.
    sql(
        database,
        "CREATE TABLE badges (id bigint, holder bigint REFERENCES employees ON DELETE CASCADE)"
        " PARTITION BY LIST (holder)",
    )
    sql(database, "CREATE TABLE badges_1 PARTITION OF badges FOR VALUES IN (1)")
    sql(database, "CREATE TABLE badges_2 PARTITION OF badges DEFAULT")
    sql(database, "INSERT INTO badges VALUES (11, 1), (12, 2)")
    tally = asyncio.run(db.way_out.merge.merge(database, None))
    assert (tally.rows, tally.notes) == ({"departments": 1, "employees": 1}, [])
    assert sql(database, "SELECT id, holder FROM badges_1 ORDER BY id") == [(11, 1), (12, 1)]
    tally = asyncio.run(db.way_out.undo.undo(database, None))
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


# What doctor says of such tables


def checks(database: str) -> list[Check]:
    return list(doctor.checks(database, Settings()))


def details(database: str, subject: str, level: str) -> list[str]:
    return [check[2] for check in checks(database) if check[:2] == (level, subject)]


NO_KEY = "neither guard nor constraint can hold for this kind of table: "


@pytest.mark.parametrize("family", FAMILIES)
def test_doctor_says_what_the_table_is(family: str, database: str) -> None:
    statement, told = FAMILIES[family]
    sql(database, "INSERT INTO departments (name) VALUES ('Sales')")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement.encode())
        resource = "departments" if "branches" in told else "employees"
        level = "FAIL" if "foreign" in family or "view" in family else "advice"
        found = [detail for detail in details(database, resource, level) if told in detail]
        assert found
        if "view" in family:
            assert found == [f"{told}: what is stored behind it cannot be checked"]
        (key,) = details(database, f"{resource} key", "advice")
        assert key.startswith(NO_KEY)


def test_doctor_says_that_a_guard_and_a_constraint_do_not_hold_in_a_child(database: str) -> None:
    guard(database)
    sql(database, "CREATE TABLE contractors () INHERITS (employees)")
    sql(database, "CREATE UNIQUE INDEX departments_key ON departments (name)")
    sql(database, "ALTER TABLE departments ADD UNIQUE USING INDEX departments_key")
    sql(database, "CREATE TABLE branches () INHERITS (departments)")
    for resource in ("departments", "employees"):
        assert [key[: len(NO_KEY)] for key in details(database, f"{resource} key", "advice")] == [
            NO_KEY
        ]


def test_a_child_is_read_by_the_lookup_and_needs_its_index(database: str) -> None:
    sql(database, "CREATE TABLE contractors () INHERITS (employees)")
    advice = "each request reads the whole of contractors: build this index there, too"
    assert details(database, "employees lookup", "advice") == [advice]
    assert details(database, "employees lookup", "FAIL") == []
    sql(
        database,
        "CREATE INDEX ON contractors"
        " USING hash (hash_record_extended(ROW(department_id, name), 0))",
    )
    assert details(database, "employees lookup", "advice") == []
    assert len(details(database, "employees lookup", "ok")) == 1


# The service on partitioned tables

PARTITIONS = 3
PARTITIONED = """
DROP TABLE employees, departments;
CREATE TABLE departments (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) PARTITION BY HASH (id);
CREATE TABLE employees (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    department_id bigint NOT NULL REFERENCES departments ON DELETE CASCADE,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, department_id)
) PARTITION BY HASH (department_id);
DO $$
BEGIN
    FOR n IN 0..2 LOOP
        EXECUTE format('CREATE TABLE departments_%1$s PARTITION OF departments'
            ' FOR VALUES WITH (MODULUS 3, REMAINDER %1$s)', n);
        EXECUTE format('CREATE TABLE employees_%1$s PARTITION OF employees'
            ' FOR VALUES WITH (MODULUS 3, REMAINDER %1$s)', n);
    END LOOP;
END
$$;
"""


@pytest.fixture
def partitioned(database: str) -> str:
    """The URL of a database whose tables have partitions, with the indexes that init builds."""
    with change.connect(database, "test") as connection:
        connection.execute(PARTITIONED.encode())
    apply_schema(database)
    make_roles(database)
    return database


def post_at_once(service: Service, path: str, **body: Any) -> int:
    """Post one key from many clients at once; return the id that all of them must be told."""
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda _: service.post(path, **body), range(16)))
    assert Counter(answer.status_code for answer in made) == {201: 1, 200: 15}
    (id_,) = {answer.json()["id"] for answer in made}
    return int(id_)


@pytest.mark.long
def test_a_partitioned_table_gets_one_row_for_a_key(partitioned: str) -> None:
    database = as_role(partitioned, SERVICE)
    with serving(DATABASE_URL=database, WORKERS="2", RETRY_DEADLINE="60") as service:
        for number in range(10):
            department = post_at_once(service, "/departments", name=f"Research {number}")
            id_ = post_at_once(service, "/employees", name="Ada", department_id=department)
            assert service.http.get(f"/employees/{id_}").json()["name"] == "Ada"
        path = f"/employees?department_id={department}&name=Ada"
        assert len(service.http.get(path).json()["items"]) == 1
        assert service.http.delete(f"/departments/{department}").status_code == 204
        assert service.http.get(path).json()["items"] == []
        assert service.complaints() == []
    for resource in ("departments", "employees"):
        assert legacy.duplicated(partitioned, resource) == 0


def test_a_lookup_locks_a_page_in_the_index_of_each_partition(partitioned: str) -> None:
    with psycopg.connect(
        partitioned, cursor_factory=RawCursor, options="-c enable_seqscan=off"
    ) as connection:
        connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        for resource, key in (("departments", ["Ada"]), ("employees", [1, "Ada"])):
            connection.execute(QUERIES[f"{resource}/select"], key)
            locks = connection.execute(
                b"SELECT locktype, relkind::text, count(*) FROM pg_locks"
                b" INNER JOIN pg_class ON pg_class.oid = relation"
                b" WHERE mode = 'SIReadLock' AND pid = pg_backend_pid() GROUP BY 1, 2"
            ).fetchall()
            assert locks == [("page", "i", PARTITIONS)]
            connection.rollback()


@pytest.mark.usefixtures("durable")
def test_doctor_finds_a_partitioned_table_fit(partitioned: str) -> None:
    found = checks(as_role(partitioned, SERVICE))
    assert [check for check in found if check.level == "FAIL"] == []
    for resource in ("departments", "employees"):
        (lookup,) = (check for check in found if check.subject == f"{resource} lookup")
        assert (lookup.level, lookup.detail.count("_idx")) == ("ok", PARTITIONS)
        (trial,) = (check for check in found if check.subject == f"{resource} trial")
        assert trial.level == "ok"


def test_an_index_that_a_partition_lacks(partitioned: str) -> None:
    sql(partitioned, "DROP INDEX employees_lookup")
    (failure,) = details(partitioned, "employees lookup", "FAIL")
    build = failure.partition(": ")[2]
    assert "CONCURRENTLY" not in build, "PostgreSQL cannot do that for a partitioned table"
    sql(partitioned, build)
    assert details(partitioned, "employees lookup", "FAIL") == []

    sql(partitioned, "DROP INDEX employees_lookup")
    sql(partitioned, build.replace("ON employees", "ON ONLY employees"))
    (failure,) = details(partitioned, "employees lookup", "FAIL")
    for statement in failure.partition(": ")[2].split(";")[:2]:
        sql(partitioned, statement)
    assert details(partitioned, "employees lookup", "FAIL") == []


def test_a_unique_constraint_of_a_partitioned_table_holds_in_all_of_it(partitioned: str) -> None:
    sql(
        partitioned,
        "ALTER TABLE employees ADD CONSTRAINT employees_key UNIQUE (department_id, name)",
    )
    held = "the constraint employees_key holds for all writers"
    assert details(partitioned, "employees key", "ok") == [held]
