"""The transaction in one round trip does what the plain one does, whichever step fails."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import RawCursor, errors
from psycopg.pq import ExecStatus

from db import pipeline
from db.connection import Connection
from db.doctor.readiness import shortcomings
from db.pipeline import Statement
from db.pool import Pool, open_pool
from db.queries import QUERIES
from db.rows import Outcome, get_or_create, look_up
from db.settings import Settings
from db.transaction import (
    Attempts,
    AttemptsExhausted,
    SchemaMissing,
    interactive,
    transact,
)
from tests.proof.schedules import ageless
from tests.support.pools import SECONDS, borrowed
from tests.support.service import LIMIT, sql, until
from tests.support.triggers import make_trigger

pytestmark = pytest.mark.anyio

# The advisory lock at which a trigger makes an insert wait.
GATE = 42


class Gate:
    """Makes inserts into departments wait, until it is opened, after the request's select."""

    def __init__(self, database: str) -> None:
        self.database = database
        trigger(database, f"PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NEW;")
        self._session = psycopg.connect(database, autocommit=True)
        self._session.execute(f"SELECT pg_advisory_lock({GATE})")

    async def waiting(self) -> int:
        """Wait until an insert is at the gate, and return its process."""
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await asyncio.to_thread(until, lambda: sql(self.database, query) != [])
        return int(sql(self.database, query)[0][0])

    def open(self) -> None:
        self._session.close()


@pytest.fixture
def gate(database: str) -> Iterator[Gate]:
    gate = Gate(database)
    yield gate
    gate.open()


def trigger(database: str, body: str, *, deferred: bool = False) -> None:
    when = "AFTER INSERT" if deferred else "BEFORE INSERT"
    make_trigger(database, "departments", body, when, deferred=deferred)


def run(
    pool: Pool, name: str, attempts: Attempts | None = None, seconds: float = SECONDS
) -> Coroutine[Any, Any, Outcome]:
    return transact(
        pool,
        partial(get_or_create, resource="departments", key=(name,), attributes=()),
        seconds=seconds,
        attempts=attempts,
        key_constraint="departments_key",
    )


async def test_it_creates_then_finds(pool: Pool, database: str) -> None:
    created = await run(pool, "Ada")
    found = await run(pool, "Ada")
    assert (created.created, created.copies) == (True, 1)
    assert found == Outcome(created.row, 1, created=False)
    assert set(found.row) == {"id", "name", "created_at"}
    sql(database, "INSERT INTO departments (name) VALUES ('Ada')")
    assert (await run(pool, "Ada")).copies == 2


async def test_a_text_is_not_cut_at_nul(pool: Pool, database: str) -> None:
    with pytest.raises(psycopg.DataError):
        await run(pool, "Ada\0Lovelace")
    assert sql(database, "SELECT count(*) FROM departments") == [(0,)]


async def test_a_request_that_hangs_in_a_failed_transaction_is_ended_by_the_server(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(database, "CREATE SEQUENCE attempt")
    trigger(
        database,
        "IF nextval('attempt') < 2 THEN RAISE serialization_failure; END IF; RETURN NEW;",
    )
    clear_up = Connection._cleared_up
    hanging = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE state = 'idle in transaction (aborted)' AND datname = current_database()"
    )
    seen: list[object] = []

    async def hang(self: Connection, error: psycopg.Error) -> psycopg.Error:
        if not seen:  # with the whole worker
            seen.append(sql(database, hanging))
            until(lambda: sql(database, hanging) == [(0,)])
        return await clear_up(self, error)

    monkeypatch.setattr(Connection, "_cleared_up", hang)
    settings = Settings(database_url=database, pool_size=1, retry_deadline=0.5)
    async with open_pool(settings) as pool:
        assert (await run(pool, "Ada")).created
    assert seen == [[(1,)]]


async def test_answers_that_do_not_match_do_not_hang_the_worker(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Connection._send
    monkeypatch.setattr(
        Connection,
        "_send",
        lambda self, loop, steps, values, how: send(self, loop, steps[1:], values[1:], how),
    )
    with pytest.raises(AttemptsExhausted):
        await run(pool, "Ada", seconds=0.3)


async def test_without_the_pipeline_each_message_has_one_step(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, steps_sent = Connection._send, []

    def count(self: Connection, loop: Any, steps: Any, *others: Any) -> None:
        steps_sent.append(len(steps))
        send(self, loop, steps, *others)

    monkeypatch.setattr(Connection, "_send", count)
    async with open_pool(Settings(database_url=database, pool_size=1, pipeline=False)) as pool:
        for created in (True, False):
            outcome = await run(pool, "Ada")
            assert outcome.created is created
        found = await look_up(pool, "departments", str(outcome.row["id"]), SECONDS)
        assert found == outcome.row
        await transact(pool, partial(shortcomings, names=["departments"]), seconds=SECONDS)
    assert set(steps_sent) == {1}


async def test_resources_share_a_connection(database: str) -> None:
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        department = (await run(pool, "Research")).row["id"]
        for created in (True, False):
            key = (str(department), "Ada")
            outcome = await transact(
                pool,
                partial(get_or_create, resource="employees", key=key, attributes=()),
                seconds=SECONDS,
            )
            assert outcome.created is created
            assert outcome.row["department_id"] == department


@pytest.mark.parametrize("constraint", [False, True])
async def test_another_creator_between_select_and_insert(
    constraint: bool, pool: Pool, database: str, gate: Gate
) -> None:
    if constraint:
        sql(database, "ALTER TABLE departments ADD CONSTRAINT departments_key UNIQUE (name)")
    attempts = Attempts()
    request = asyncio.ensure_future(run(pool, "Ada", attempts))
    await gate.waiting()
    with psycopg.connect(database, cursor_factory=RawCursor) as other:
        other.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        other.execute("SET LOCAL session_replication_role = replica")  # past the gate
        other.execute("SET LOCAL enable_seqscan = off")
        assert other.execute(QUERIES["departments/select"], ["Ada"]).fetchall() == []
        ((id_, *_),) = other.execute(ageless("departments/insert"), ["Ada"]).fetchall()
    gate.open()
    outcome = await request
    assert (outcome.row["id"], outcome.created) == (id_, False)
    assert attempts.retried == ["40001"] or (constraint and attempts.retried == ["23505"])
    assert sql(database, "SELECT count(*) FROM departments") == [(1,)]


async def test_every_attempt_is_serializable(pool: Pool, database: str) -> None:
    # Raised by the first attempt only: the sequence does not roll back.
    sql(database, "CREATE SEQUENCE attempt")
    sql(database, "CREATE TABLE levels (level text)")
    trigger(
        database,
        "IF nextval('attempt') < 3 THEN RAISE serialization_failure; END IF;"
        " INSERT INTO levels VALUES (current_setting('transaction_isolation')); RETURN NEW;",
    )
    attempts = Attempts()
    await run(pool, "Ada", attempts)
    assert sql(database, "SELECT level FROM levels") == [("serializable",)]
    assert attempts == Attempts(begun=3, retried=["40001", "40001"])


@pytest.mark.parametrize("deferred", [False, True], ids=["insert", "commit"])
@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("unique_violation", errors.UniqueViolation),
        ("raise_exception", errors.RaiseException),
        ("foreign_key_violation", errors.ForeignKeyViolation),
        ("insufficient_privilege", SchemaMissing),
    ],
)
async def test_a_step_that_fails_ends_the_transaction(
    raised: str, expected: type[Exception], deferred: bool, pool: Pool, database: str
) -> None:
    trigger(database, f"RAISE {raised};", deferred=deferred)
    attempts = Attempts()
    with pytest.raises(expected):
        await run(pool, "Ada", attempts)
    # Once more after the first violation of any unique constraint.
    retried = ["23505"] if expected is errors.UniqueViolation else []
    assert attempts == Attempts(begun=1 + len(retried), retried=retried)
    assert sql(database, "SELECT count(*) FROM departments") == [(0,)]


async def test_a_serialization_failure_at_commit_is_retried(pool: Pool, database: str) -> None:
    sql(database, "CREATE SEQUENCE attempt")
    body = "IF nextval('attempt') < 2 THEN RAISE serialization_failure; END IF; RETURN NULL;"
    trigger(database, body, deferred=True)
    attempts = Attempts()
    assert (await run(pool, "Ada", attempts)).created
    assert attempts.retried == ["40001"]
    assert sql(database, "SELECT count(*) FROM departments") == [(1,)]


async def test_a_select_that_fails_ends_the_transaction(pool: Pool, database: str) -> None:
    await run(pool, "Ada")
    # Those that have prepared the select, and those that have not yet.
    sql(database, "ALTER TABLE departments RENAME name TO title")
    for _ in range(2 * pool.size):
        with pytest.raises(SchemaMissing):
            await run(pool, "Grace")
    sql(database, "ALTER TABLE departments RENAME title TO name")
    assert (await run(pool, "Grace")).created


async def test_a_column_that_changes_its_type_is_a_retry(pool: Pool, database: str) -> None:
    for _ in range(pool.size):
        await run(pool, "Ada")
    sql(database, "ALTER TABLE departments ALTER name TYPE varchar(300)")
    for _ in range(2 * pool.size):
        assert not (await run(pool, "Ada")).created


async def test_what_was_prepared_before_a_failure_is_not_prepared_again(database: str) -> None:
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        sql(database, "ALTER TABLE departments RENAME created_at TO made_at")
        for _ in range(2):
            with pytest.raises(SchemaMissing):  # of the select, when BEGIN is prepared
                await run(pool, "Ada")
        sql(database, "ALTER TABLE departments RENAME made_at TO created_at")
        assert (await run(pool, "Ada")).created


async def test_statements_that_were_deallocated_are_prepared_again(pool: Pool) -> None:
    for name in ("Ada", "Grace", "Alan"):
        assert (await run(pool, name)).created
        for _ in range(pool.size):
            async with borrowed(pool) as connection:
                await connection.execute(b"DEALLOCATE ALL")


async def test_a_rollback_after_a_probe_leaves_what_is_prepared(database: str) -> None:
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        await run(pool, "Ada")
        await transact(pool, partial(shortcomings, names=["departments"]), seconds=SECONDS)
        with pytest.raises(errors.DivisionByZero):
            await transact(
                pool,
                interactive(lambda connection: connection.execute(b"SELECT 1 / 0")),
                seconds=SECONDS,
            )
        attempts = Attempts()
        await run(pool, "Ada", attempts)
        assert attempts == Attempts(begun=1)


async def create_while_the_connection_is_killed(pool: Pool, database: str, gate: Gate) -> None:
    """Kill it between select and COMMIT; the row must be created by a second attempt."""
    attempts = Attempts()
    request = asyncio.ensure_future(run(pool, "Ada", attempts))
    sql(database, "SELECT pg_terminate_backend(%s, 10000)", await gate.waiting())
    gate.open()
    assert (await request).created
    assert (attempts.begun, len(attempts.retried)) == (2, 1)


async def test_a_connection_killed_between_select_and_commit_is_replaced(
    pool: Pool, database: str, gate: Gate
) -> None:
    await create_while_the_connection_is_killed(pool, database, gate)
    assert sql(database, "SELECT count(*) FROM departments") == [(1,)]


async def test_an_end_that_the_event_loop_does_not_tell_of_is_seen(
    pool: Pool, database: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Connection._send

    def untold(self: Connection, loop: asyncio.AbstractEventLoop, *message: Any) -> None:
        send(self, loop, *message)
        loop.remove_reader(self._watched)  # as uvloop does where a socket has an error

    monkeypatch.setattr(Connection, "_send", untold)
    await create_while_the_connection_is_killed(pool, database, gate)


async def test_an_error_in_the_place_of_sync_does_not_undo_the_commit(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Connection._on_readable

    def end(self: Connection) -> None:
        read(self)
        answered = self._done is not None and self._done.done()
        if answered and self._results[-1].command_status == b"COMMIT":
            self._results.append(self.pgconn.make_empty_result(ExecStatus.FATAL_ERROR))
            self.finish()

    monkeypatch.setattr(Connection, "_on_readable", end)
    attempts = Attempts()
    assert (await run(pool, "Ada", attempts)).created
    assert [each for each in attempts.retried if each != "late"] == []


async def test_a_message_that_does_not_fit_into_the_socket_is_sent_to_its_end(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "LOOK", 3600)  # a look sends more of it, too
    statement = Statement(b"SELECT length($1::text) AS length", ["x" * 2**23])
    async with borrowed(pool) as connection:
        rows = await asyncio.wait_for(connection.run(statement), LIMIT)
        assert rows == [[{"length": 2**23}]]
        still_watched = asyncio.get_running_loop().remove_writer(connection._watched)
        assert not still_watched


async def test_the_deadline_ends_the_wait(pool: Pool, gate: Gate) -> None:
    request = asyncio.ensure_future(run(pool, "Ada", seconds=0.3))
    process = await gate.waiting()
    os.kill(process, signal.SIGSTOP)  # nor does it wait for a server that does not answer
    try:
        with pytest.raises(AttemptsExhausted):
            await request
    finally:
        os.kill(process, signal.SIGCONT)
    gate.open()


async def test_cancelled_tasks_leave_no_transaction_and_lose_no_connection(
    pool: Pool, database: str
) -> None:
    # Cancelled after 0, 1, 2, ... turns of the event loop: at every await there is on the way.
    ends: set[str] = set()
    for turns in range(100):
        tasks = [asyncio.ensure_future(run(pool, f"{turns} {n}")) for n in range(8)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            ends.add(type(result).__name__)
    assert "CancelledError" in ends
    assert ends <= {"CancelledError", "Outcome"}
    assert sql(database, "SELECT FROM departments GROUP BY name HAVING count(*) > 1") == []
