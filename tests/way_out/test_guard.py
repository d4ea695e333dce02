"""With the guard on, no writer makes a second row for a key, at any isolation level."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import db.way_out.guard
from db.queries import QUERIES
from db.way_out import change
from tests.bench.guard import ADVISORY, with_lock
from tests.proof.linearizability import Call
from tests.proof.schedules import Session, run
from tests.proof.search import running, verify
from tests.proof.workloads import BLIND, Operation, Runner, Workload, workloads
from tests.support import legacy
from tests.support.roles import as_role, make_role
from tests.support.service import sql

LEVELS = (
    IsolationLevel.READ_COMMITTED,
    IsolationLevel.REPEATABLE_READ,
    IsolationLevel.SERIALIZABLE,
)
NAMES = ("Ada", "Grace", "Alan")
ADA = "INSERT INTO employees (department_id, name) VALUES (1, 'Ada')"

# A writer that comes too late may get any of these SQLSTATEs.
REFUSALS = {"23505", "40001", "40P01"}


def guard(database: str, action: str) -> None:
    with change.connect(database, "guard") as connection:
        db.way_out.guard.guard(connection, action)


@pytest.fixture
def guarded(database: str) -> str:
    """The URL of a database with department 1 and the guard on."""
    sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    guard(database, "on")
    return database


COPIES = "SELECT department_id, name FROM employees"


def copies(database: str) -> Counter[tuple[int, str]]:
    return Counter(sql(database, COPIES))


# Schedules: two writers take their steps in every order, and more writers in drawn orders


@dataclass
class Writer(Session):
    """A transaction that knows nothing of the guard, with one statement a step."""

    async def step(self, name: str) -> None:
        if self.failed:
            return
        try:
            if name == "COMMIT":
                await self.connection.commit()
                self.committed = True
            else:
                await self.connection.execute(name.encode())
        except psycopg.Error as error:
            self.failed = error.sqlstate or "?"
            await self.connection.rollback()


class Writing(NamedTuple):
    """The isolation level and the statements of a writer."""

    level: IsolationLevel
    statements: tuple[str, ...]

    @property
    def steps(self) -> tuple[str, ...]:
        # The first statement takes the snapshot that REPEATABLE READ and SERIALIZABLE keep.
        return ("SELECT FROM departments", *self.statements, "COMMIT")


class Stage:
    """The writers' connections, and a table that is filled anew for each schedule."""

    def __init__(self, database: str) -> None:
        self.loop = asyncio.Runner()
        self.database = database
        # Where a writer is left in a transaction, which must not be, this fails instead of waiting.
        self.admin = psycopg.connect(database, autocommit=True, options="-c lock_timeout=10s")
        self.monitor = self._connect()
        self.connections = [self._connect() for _ in range(4)]

    def _connect(self) -> AsyncConnection:
        # Deadlocks are among the outcomes, and PostgreSQL looks for one only after this time.
        options = "-c deadlock_timeout=20ms -c enable_seqscan=off"
        return self.loop.run(
            AsyncConnection.connect(self.database, options=options, cursor_factory=AsyncRawCursor)
        )

    def close(self) -> None:
        for connection in (self.monitor, *self.connections):
            self.loop.run(connection.close())
        self.loop.close()
        self.admin.close()

    def run(
        self, legacy: tuple[int, ...], writers: list[Writing], order: list[int]
    ) -> list[Session]:
        """Fill the table with so many rows of each of NAMES, and let the writers take turns."""
        with self.admin.transaction():
            self.admin.execute("ALTER TABLE employees DISABLE TRIGGER USER")
            self.admin.execute("TRUNCATE employees RESTART IDENTITY")
            for name, number in zip(NAMES, legacy, strict=True):
                for _ in range(number):
                    self.admin.execute(ADA.replace("Ada", name))
            self.admin.execute(QUERIES["employees/guard_always"])
        return self.loop.run(self._run(writers, order))

    async def _run(self, writers: list[Writing], order: list[int]) -> list[Session]:
        await self.monitor.set_autocommit(True)
        sessions: dict[str, Session] = {}
        for i, writing in enumerate(writers):
            connection = self.connections[i]
            await connection.set_isolation_level(writing.level)
            sessions[str(i)] = Writer(str(i), connection, ())
        steps = {i: iter(writing.steps) for i, writing in enumerate(writers)}
        await run(sessions, [(str(i), next(steps[i])) for i in order], self.monitor)
        return list(sessions.values())

    def gained(self, legacy: tuple[int, ...]) -> list[str]:
        """Return the names that have more rows than before, and more than one."""
        now = Counter(self.admin.execute(COPIES).fetchall())
        before = dict(zip(NAMES, legacy, strict=True))
        return [name for name in NAMES if now[1, name] > max(1, before[name])]


@pytest.fixture
def stage(guarded: str) -> Iterator[Stage]:
    stage = Stage(guarded)
    yield stage
    stage.close()


WRITES = {
    "insert": ADA,
    "update Grace": "UPDATE employees SET name = 'Ada' WHERE name = 'Grace'",
    "update Alan": "UPDATE employees SET name = 'Ada' WHERE name = 'Alan'",
}


@pytest.mark.long
@pytest.mark.parametrize("first", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("second", LEVELS, ids=lambda level: level.name)
def test_of_two_writers_of_a_key_in_any_order_one_succeeds(
    stage: Stage, first: IsolationLevel, second: IsolationLevel
) -> None:
    writes = [("insert", "insert"), ("insert", "update Alan"), ("update Grace", "update Alan")]
    for (one, other), places in product(writes, combinations(range(6), 3)):
        writers = [Writing(first, (WRITES[one],)), Writing(second, (WRITES[other],))]
        order = [0 if i in places else 1 for i in range(6)]
        sessions = stage.run((0, 1, 1), writers, order)
        assert stage.gained((0, 1, 1)) == [], (one, other, order)
        assert sorted(session.committed for session in sessions) == [False, True]
        loser = next(i for i, session in enumerate(sessions) if not session.committed)
        refusals = {"23505"} if writers[loser].level is LEVELS[0] else {"23505", "40001"}
        assert sessions[loser].failed in refusals


statements = st.one_of(
    st.sampled_from(NAMES).map(lambda name: ADA.replace("Ada", name)),
    st.tuples(st.sampled_from(NAMES), st.integers(1, 6)).map(
        lambda to: f"UPDATE employees SET name = '{to[0]}' WHERE id = {to[1]}"
    ),
    st.integers(1, 6).map(lambda id_: f"DELETE FROM employees WHERE id = {id_}"),
)
writings = st.builds(
    Writing, st.sampled_from(LEVELS), st.lists(statements, min_size=1, max_size=3).map(tuple)
)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Writing], list[int]]:
    """Draw legacy rows, two to four writers, and an order of their steps."""
    legacy = draw(st.tuples(*[st.integers(0, 3)] * len(NAMES)))
    writers = draw(st.lists(writings, min_size=2, max_size=4))
    turns = [i for i, writing in enumerate(writers) for _ in writing.steps]
    return legacy, writers, draw(st.permutations(turns))


@pytest.mark.long
def test_no_generated_schedule_of_writers_makes_a_second_row(stage: Stage) -> None:
    @settings(max_examples=300)  # each takes some hundredths of a second
    @given(schedule=schedules())
    def property_(schedule: tuple[tuple[int, ...], list[Writing], list[int]]) -> None:
        sessions = stage.run(*schedule)
        assert stage.gained(schedule[0]) == []
        assert {session.failed for session in sessions if session.failed} <= REFUSALS

    property_()


BROKEN = {
    "no lock": b"",
    "an advisory lock": ADVISORY,
}


@pytest.mark.long
@pytest.mark.parametrize("broken", BROKEN)
def test_the_schedules_catch_a_guard_that(broken: str, stage: Stage) -> None:
    stage.admin.execute("SET search_path = public, pg_temp")
    stage.admin.execute(with_lock(BROKEN[broken]))

    gained: list[str] = []

    # One in a hundred shows it. That one is not run again, as a failing example would be, because
    # it may end otherwise: the writer that a deadlock ends is the one that looked for it first.
    @settings(max_examples=1_500, database=None, phases=[Phase.generate])
    @given(schedule=schedules())
    def draw(schedule: tuple[tuple[int, ...], list[Writing], list[int]]) -> None:
        if not gained:
            stage.run(*schedule)
            gained.extend(stage.gained(schedule[0]))

    draw()
    assert gained


# The real service, guarded, beside the writer of CONTROLS' "blind insert"


class GuardedRunner(Runner):
    """Inserts legacy rows past the guard; a blind insert that the guard refuses is no call."""

    def _insert(self, into: str, values: list[object], copies: int) -> None:
        table = into.split()[0]
        with self.connection.transaction():
            self.connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
            super()._insert(into, values, copies)
            self.connection.execute(QUERIES[f"{table}/guard_always"])

    def _blind_insert(
        self, number: int, operation: Operation, known: dict[str, list[int]]
    ) -> list[Call]:
        try:
            return super()._blind_insert(number, operation, known)
        except psycopg.errors.UniqueViolation:
            return []


@pytest.fixture(scope="module")
def runner(new_database: Callable[[], str]) -> Iterator[Runner]:
    database = new_database()
    guard(database, "on")
    # Blind writers often wait for each other in a circle. PostgreSQL looks for that after a second.
    name = conninfo_to_dict(database)["dbname"]
    sql(database, f"ALTER DATABASE {name} SET deadlock_timeout = 20")
    with running("none", database, GuardedRunner) as runner:
        yield runner


@pytest.mark.long
@settings(max_examples=30)  # each waits for deadlocks
@given(workload=workloads(BLIND))
def test_the_service_and_blind_writers_are_linearizable_together(
    runner: Runner, workload: Workload
) -> None:
    verify(runner, workload)


# What the guard refuses, and what it lets pass


def test_the_refusal_is_that_of_a_unique_constraint_with_a_hint(guarded: str) -> None:
    sql(guarded, ADA)
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        sql(guarded, ADA)
    diagnostics = caught.value.diag
    assert diagnostics.constraint_name == "employees_key"
    assert (diagnostics.schema_name, diagnostics.table_name) == ("public", "employees")
    assert diagnostics.message_detail == "Key (department_id, name)=(1, Ada) already exists."
    assert diagnostics.message_hint == "Use the row with id 1, which has this key."
    with pytest.raises(psycopg.errors.UniqueViolation, match=re.escape("(name)=(Research)")):
        sql(guarded, "INSERT INTO departments (name) VALUES ('Research')")


@pytest.mark.parametrize(
    "write",
    [
        ADA,
        "INSERT INTO employees (department_id, name) VALUES (1, 'Grace'), (1, 'Grace')",
        "UPDATE employees SET name = 'Ada' WHERE name = 'Alan'",
        "UPDATE employees SET department_id = 1 WHERE department_id = 2",
        f"{ADA} ON CONFLICT DO NOTHING",
    ],
)
def test_it_refuses(write: str, database: str) -> None:
    sql(database, "INSERT INTO departments (name) VALUES ('Research'), ('Sales')")
    sql(
        database,
        "INSERT INTO employees (department_id, name)"
        " VALUES (1, 'Ada'), (1, 'Ada'), (1, 'Alan'), (2, 'Ada')",
    )
    guard(database, "on")
    before = copies(database)
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(database, write)
    assert copies(database) == before


@pytest.mark.parametrize(
    "write",
    [
        "UPDATE employees SET created_at = now(), name = name",
        "DELETE FROM employees WHERE id = 1",
        "UPDATE employees SET name = CASE id WHEN 4 THEN 'Grace' ELSE 'Alan' END WHERE id > 3",
        ADA.replace("Ada", "ada"),
    ],
)
def test_it_lets_other_writes_pass(write: str, database: str) -> None:
    sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    for name in ("Ada", "Ada", "Ada", "Alan", "Grace"):
        sql(database, ADA.replace("Ada", name))
    guard(database, "on")
    sql(database, write)


def test_it_refuses_copy_and_replicated_rows(guarded: str) -> None:
    sql(guarded, ADA)
    with psycopg.connect(guarded) as connection:
        copying = connection.cursor().copy("COPY employees (department_id, name) FROM STDIN")
        with pytest.raises(psycopg.errors.UniqueViolation), copying as copy:
            copy.write("1\tAda\n")
        connection.rollback()
        connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(ADA.encode())


def test_a_role_that_may_only_insert_is_guarded_too(guarded: str) -> None:
    make_role(guarded, "onerow_test_clerk")
    sql(guarded, "GRANT INSERT ON employees TO onerow_test_clerk")
    clerk = as_role(guarded, "onerow_test_clerk")
    sql(clerk, ADA)
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(clerk, ADA)


@pytest.mark.parametrize("level", LEVELS[1:], ids=lambda level: level.name)
def test_a_transaction_older_than_the_guard_must_begin_again(
    level: IsolationLevel, database: str
) -> None:
    sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    with psycopg.connect(database) as connection:
        connection.set_isolation_level(level)
        connection.execute("SELECT")  # takes a snapshot that is older than the row below
        sql(database, ADA)
        guard(database, "on")
        with pytest.raises(psycopg.errors.SerializationFailure):
            connection.execute(ADA.encode())
        connection.rollback()
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(ADA.encode())


def test_a_key_that_was_deleted_may_come_again(guarded: str) -> None:
    for _ in range(2):
        sql(guarded, ADA)
        sql(guarded, "DELETE FROM employees")
    sql(guarded, ADA)


def test_off_leaves_nothing_behind(guarded: str) -> None:
    guard(guarded, "off")
    sql(guarded, ADA)
    sql(guarded, ADA)
    assert sql(guarded, "SELECT FROM pg_proc WHERE proname ~ 'guard'") == []
    assert sql(guarded, "SELECT FROM pg_class WHERE relname ~ 'guard'") == []
    guard(guarded, "off")


def test_on_waits_for_writers_in_short_tries_and_tells_who_they_are(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "CHANGE_DEADLINE", 0)
    with psycopg.connect(database, application_name="slow writer") as connection:
        connection.execute("INSERT INTO departments (name) VALUES ('Research')")
        with pytest.raises(change.Refused, match=r"slow writer, idle in transaction"):
            guard(database, "on")
    guard(database, "on")


def test_on_lets_the_writers_go_on_between_its_tries(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(change, "LOCK_TIMEOUT", 20)
    monkeypatch.setattr(change, "LOCK_TIMEOUT_MAX", 80)
    monkeypatch.setattr(random, "uniform", lambda low, high: (low, high)[1])
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO departments (name) VALUES ('Research')")

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            brief = make_conninfo(database, options="-c lock_timeout=9s")
            sql(brief, "INSERT INTO departments (name) VALUES ('Sales')")
            if len(pauses) == 3:
                connection.commit()

        monkeypatch.setattr(change, "sleep", pause)
        guard(database, "on")
    assert pauses == [0.04, 0.08, 0.08]


# Ways in which a row might get past the guard


def test_a_temporary_table_does_not_hide_the_rows(guarded: str) -> None:
    sql(guarded, ADA)
    with psycopg.connect(guarded, autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE employees (LIKE public.employees)")
        connection.execute("CREATE TEMPORARY TABLE employees_guard_locks (hash bigint)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(ADA.replace("employees", "public.employees").encode())
        connection.execute(ADA.replace("employees", "public.employees").replace("Ada", "Al"))
    assert sql(guarded, "SELECT count(*) FROM employees_guard_locks") == [(2,)]


def test_a_function_of_the_same_name_is_not_called(guarded: str) -> None:
    sql(guarded, ADA)
    for types in ("record, integer", "record, bigint"):
        sql(
            guarded,
            f"CREATE FUNCTION public.hash_record_extended({types}) RETURNS bigint"
            " IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$",
        )
    for insert in (ADA, "INSERT INTO departments (name) VALUES ('Research')"):
        with pytest.raises(psycopg.errors.UniqueViolation):
            sql(guarded, insert)


@pytest.mark.parametrize("level", LEVELS[1:], ids=lambda level: level.name)
@pytest.mark.parametrize(
    "pause", ["off", "ALTER TABLE employees DISABLE TRIGGER employees_guard_insert"]
)
def test_a_guard_that_was_away_is_a_new_one(
    level: IsolationLevel, pause: str, guarded: str
) -> None:
    with psycopg.connect(guarded) as connection:
        connection.set_isolation_level(level)
        connection.execute("SELECT")
        if pause == "off":
            guard(guarded, "off")
        else:
            sql(guarded, pause)
        sql(guarded, ADA)
        guard(guarded, "on")
        with pytest.raises(psycopg.errors.SerializationFailure):
            connection.execute(ADA.encode())


def test_a_restore_without_triggers_leaves_it_at_work(guarded: str) -> None:
    # pg_restore --data-only --disable-triggers sends these two.
    sql(guarded, "ALTER TABLE employees DISABLE TRIGGER ALL")
    sql(guarded, "ALTER TABLE employees ENABLE TRIGGER ALL")
    assert "employees: the guard is incomplete" in legacy.run(guarded, "guard", "status")[1]
    sql(guarded, ADA)
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(guarded, ADA)
    guard(guarded, "on")
    assert legacy.run(guarded, "guard", "status")[0] == 0


def test_row_security_makes_it_fail_rather_than_look_away(guarded: str) -> None:
    make_role(guarded, "onerow_test_tenant")
    sql(guarded, "GRANT CREATE ON SCHEMA public TO onerow_test_tenant")
    for statement in (
        "ALTER TABLE employees OWNER TO onerow_test_tenant",
        "ALTER FUNCTION employees_guard() OWNER TO onerow_test_tenant",
        "ALTER TABLE employees_guard_locks OWNER TO onerow_test_tenant",
        "ALTER TABLE employees ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE employees FORCE ROW LEVEL SECURITY",
        "CREATE POLICY own ON employees USING (name <> 'Ada') WITH CHECK (true)",
    ):
        sql(guarded, statement)
    sql(guarded, "GRANT SELECT ON departments TO onerow_test_tenant")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        sql(as_role(guarded, "onerow_test_tenant"), ADA)


def test_its_locks_survive_a_crash_as_a_prepared_transaction_does(guarded: str) -> None:
    query = (
        "SELECT relpersistence::text FROM pg_class WHERE oid = 'employees_guard_locks'::regclass"
    )
    assert sql(guarded, query) == [("p",)]


def test_it_stands_beside_its_table_whoever_turns_it_on(database: str) -> None:
    ((role,),) = sql(database, "SELECT current_user")
    sql(database, f'CREATE SCHEMA "{role}"')  # comes first in the role's search_path
    guard(database, "on")
    objects = "SELECT pronamespace::regnamespace::text FROM pg_proc WHERE proname ~ 'guard'"
    assert sql(database, objects) == [("public",)] * 2
    sql(database, f'DROP SCHEMA "{role}"')
    guard(database, "off")
    assert sql(database, objects) == []


def test_on_and_off_take_turns(database: str) -> None:
    with change.connect(database, "guard") as first:
        assert change.ask(first, "way_out/turn")[0]["mine"]
        with legacy.start(database, "guard", "on") as second:
            assert second.stdout is not None
            assert second.stdout.readline().startswith("Waiting for")
            assert sql(database, "SELECT FROM pg_trigger WHERE tgname ~ 'guard'") == []
            first.close()
            assert second.wait() == 0
