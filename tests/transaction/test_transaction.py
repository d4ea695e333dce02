"""The retry loop, on conflicts that are forced and not hoped for."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partialmethod
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import PoolClosed, PoolTimeout

from db import pipeline
from db.connection import Connection
from db.pipeline import Row
from db.pool import Pool, open_pool
from db.rows import Outcome
from db.session import TABLES
from db.settings import Settings
from db.transaction import (
    Attempts,
    AttemptsExhausted,
    NoConnection,
    QueueFull,
    ReadOnlyDatabase,
    SchemaMissing,
    Unavailable,
    interactive,
    transact,
)
from tests.support.pools import SECONDS, borrowed, filled, nothing_left_behind, one
from tests.support.service import LIMIT, sql, until
from tests.support.textbook import get_or_create

pytestmark = pytest.mark.anyio


async def run(pool: Pool, work: Callable[[Connection], Awaitable[Any]], **options: Any) -> Any:
    return await transact(pool, interactive(work), **{"seconds": SECONDS, **options})


def department(name: str) -> Callable[[Connection], Awaitable[Outcome]]:
    return lambda connection: get_or_create(connection, "departments", (name,))


async def race(pool: Pool, *, barrier_after_insert: bool) -> tuple[list[Any], list[str], int]:
    """Two creators of one key, held until both are at the barrier of their first attempt."""
    barrier, attempts, calls = asyncio.Barrier(2), Attempts(), 0

    async def creator() -> Any:
        met = False

        async def work(connection: Connection) -> Outcome:
            nonlocal met, calls
            calls += 1
            if barrier_after_insert:
                outcome = await get_or_create(connection, "departments", ("Ada",))
            else:
                await connection.execute(b"SELECT count(*) FROM departments")
            if not met:
                met = True
                await asyncio.wait_for(barrier.wait(), LIMIT)
            if not barrier_after_insert:
                outcome = await get_or_create(connection, "departments", ("Ada",))
            return outcome

        return await run(pool, work, attempts=attempts)

    return list(await asyncio.gather(creator(), creator())), attempts.retried, calls


async def test_creators_that_overlap_make_one_row(pool: Pool, database: str) -> None:
    outcomes, retried, calls = await race(pool, barrier_after_insert=False)
    # Twice where the retry began before the other's COMMIT was through.
    assert set(retried) == {"40001"}
    assert calls == 2 + len(retried)
    assert sorted(outcome.created for outcome in outcomes) == [False, True]
    assert len({outcome.row["id"] for outcome in outcomes}) == 1
    assert sql(database, "SELECT count(*) FROM departments") == [(1,)]


async def test_a_serialization_failure_at_commit_is_retried(pool: Pool, database: str) -> None:
    # Both have inserted, so both have done all their work: only COMMIT is left to fail.
    outcomes, retried, calls = await race(pool, barrier_after_insert=True)
    # Twice where the retry began before the other's COMMIT was through.
    assert set(retried) == {"40001"}
    assert calls == 2 + len(retried)
    assert sorted(outcome.created for outcome in outcomes) == [False, True]
    assert sql(database, "SELECT count(*) FROM departments") == [(1,)]


async def test_a_violation_of_the_keys_own_constraint_is_retried(pool: Pool, database: str) -> None:
    sql(database, "ALTER TABLE departments ADD CONSTRAINT departments_key UNIQUE (name)")
    first = True

    async def work(connection: Connection) -> Outcome:
        nonlocal first
        if first:
            first = False
            await connection.execute(b"SELECT 1")  # the snapshot is older than the other's row
            sql(database, "INSERT INTO departments (name) VALUES ('Ada')")
        return await get_or_create(connection, "departments", ("Ada",))

    attempts = Attempts()
    outcome = await run(pool, work, attempts=attempts, key_constraint="departments_key")
    # PostgreSQL may name either (its documentation, 13.5).
    assert attempts.retried in (["23505"], ["40001"])
    assert not outcome.created


async def test_a_23505_of_the_keys_own_constraint_is_retried_by_name(pool: Pool) -> None:
    await fails_once_with(pool, "23505", constraint="departments_key", retried=["23505"])


async def test_a_deadlock_is_retried(pool: Pool) -> None:
    await fails_once_with(pool, "40P01", constraint="", retried=["40P01"])


async def test_a_commit_whose_outcome_is_unknown_is_retried(pool: Pool) -> None:
    await fails_once_with(pool, "40003", constraint="", retried=["40003"])


async def fails_once_with(
    pool: Pool, sqlstate: str, *, constraint: str, retried: list[str]
) -> None:
    seen: list[str] = []

    async def work(connection: Connection) -> str:
        if not seen:
            seen.append(sqlstate)
            await raise_in_server(connection, sqlstate, constraint)
        return "done"

    told = Attempts()
    assert await run(pool, work, attempts=told, key_constraint="departments_key") == "done"
    assert told.retried == retried


async def raise_in_server(connection: Connection, sqlstate: str, constraint: str = "") -> None:
    await connection.execute(
        f"DO $$ BEGIN RAISE EXCEPTION 'on request' USING ERRCODE = '{sqlstate}',"
        f" CONSTRAINT = '{constraint}'; END $$"
    )


async def test_every_attempt_is_serializable(pool: Pool) -> None:
    levels: list[str] = []

    async def work(connection: Connection) -> None:
        row = await one(connection, b"SELECT current_setting('transaction_isolation') AS level")
        levels.append(row["level"])
        if len(levels) < 3:
            await raise_in_server(connection, "40001")

    await run(pool, work)
    assert levels == ["serializable"] * 3


async def test_a_read_is_read_committed_whatever_the_database_says(database: str) -> None:
    name = conninfo_to_dict(database)["dbname"]
    sql(database, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")

    async def work(connection: Connection) -> Row:
        return await one(connection, b"SELECT current_setting('transaction_isolation') AS level")

    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        assert (await transact(pool, work, seconds=SECONDS))["level"] == "read committed"
        assert (await run(pool, work))["level"] == "serializable"


async def test_the_deadline_ends_the_attempts(pool: Pool) -> None:
    attempts = Attempts()

    async def work(connection: Connection) -> None:
        await raise_in_server(connection, "40001")

    with pytest.raises(AttemptsExhausted) as caught:
        await run(pool, work, seconds=2, attempts=attempts)
    assert set(attempts.retried) == {"40001"}
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)


async def test_the_deadline_ends_a_statement(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(b"SELECT pg_sleep(3600)")

    with pytest.raises(AttemptsExhausted):
        await run(pool, work, seconds=0.3)
    await filled(pool)
    # And not that a connection in use came back, nor that ROLLBACK failed on it.
    assert {record.msg.partition(":")[0] for record in caplog.records} == {
        "discarding closed connection"
    }


@pytest.mark.parametrize(
    ("statement", "expected", "attempts"),
    [
        # Another unique constraint than the key's own. The first time it may be by the row of
        # another creator of this key.
        (
            b"INSERT INTO departments (id, name) VALUES (1, 'a'), (1, 'b')",
            errors.UniqueViolation,
            2,
        ),
        (b"SELECT 1 / 0", errors.DivisionByZero, 1),
    ],
)
async def test_other_errors_are_the_callers(
    statement: bytes, expected: type[psycopg.Error], attempts: int, pool: Pool
) -> None:
    calls = 0

    async def work(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        await connection.execute(statement)

    with pytest.raises(expected):
        await run(pool, work, key_constraint="departments_key")
    assert calls == attempts


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("25006", ReadOnlyDatabase),
        ("42P01", SchemaMissing),
        ("42501", SchemaMissing),
        ("53100", Unavailable),  # disk full
        ("55P03", Unavailable),  # lock_timeout
        ("57014", Unavailable),  # statement_timeout
    ],
)
async def test_a_database_that_cannot_serve_says_so_at_once(
    sqlstate: str, expected: type[Unavailable], pool: Pool
) -> None:
    async def work(connection: Connection) -> None:
        await raise_in_server(connection, sqlstate)

    attempts = Attempts()
    with pytest.raises(Unavailable) as caught:
        await run(pool, work, attempts=attempts)
    assert type(caught.value) is expected
    assert attempts.retried == []


async def test_a_connection_killed_between_select_and_insert_is_replaced(
    pool: Pool, database: str
) -> None:
    processes: list[int] = []

    async def work(connection: Connection) -> Outcome:
        await connection.execute(b"SELECT id FROM departments")
        processes.append(connection.info.backend_pid)
        if len(processes) == 1:
            sql(database, "SELECT pg_terminate_backend(%s, 10000)", processes[0])
        return await get_or_create(connection, "departments", ("Ada",))

    attempts = Attempts()
    outcome = await run(pool, work, attempts=attempts)
    assert outcome.created
    assert attempts.retried == ["57P01"]
    assert len(set(processes)) == 2
    assert sql(database, "SELECT count(*) FROM departments") == [(1,)]


async def test_all_pooled_connections_killed_while_idle_are_replaced(
    pool: Pool, database: str
) -> None:
    sql(
        database,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'",
    )
    assert (await run(pool, department("Ada"))).created
    found = await transact(pool, department("Ada"), seconds=SECONDS)
    assert not found.created


async def test_the_connection_is_given_back_while_the_loop_pauses(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[int] = []

    async def pause(_seconds: float) -> None:
        free.append(pool.idle)

    async def work(connection: Connection) -> None:
        if len(free) < 3:
            await raise_in_server(connection, "40001")

    monkeypatch.setattr(asyncio, "sleep", pause)
    await run(pool, work)
    assert free == [pool.size] * 3


async def test_a_full_queue_is_refused_at_once(database: str) -> None:
    settings = Settings(database_url=database, pool_size=1, pool_queue=1)
    async with open_pool(settings) as pool:
        connection = await pool.take(LIMIT)
        one, other = (asyncio.create_task(run(pool, department("Ada"))) for _ in range(2))
        done, waiting = await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)
        assert isinstance(done.pop().exception(), QueueFull)
        pool.give_back(connection)
        assert (await waiting.pop()).created


async def test_who_had_a_connection_comes_first_and_then_who_came_first(database: str) -> None:
    served: list[str] = []

    async def wait(name: str, *, again: bool = False) -> None:
        connection = await pool.take(LIMIT, again=again)
        served.append(name)
        pool.give_back(connection)

    settings = Settings(database_url=database, pool_size=1, pool_queue=2)
    async with open_pool(settings) as pool:
        connection = await pool.take(LIMIT)
        async with asyncio.TaskGroup() as group:
            group.create_task(wait("first"))
            group.create_task(wait("second"))
            group.create_task(wait("again", again=True))  # though the queue is full
            await asyncio.sleep(0)
            assert pool.waiting == 3
            pool.give_back(connection)
    assert served == ["again", "first", "second"]


async def test_no_connection_before_the_deadline(database: str) -> None:
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        connection = await pool.take(LIMIT)
        with pytest.raises(NoConnection):
            await run(pool, department("Ada"), seconds=0.1)
        pool.give_back(connection)


@pytest.mark.long
async def test_cancelled_tasks_leave_no_transaction_and_lose_no_connection(
    pool: Pool, database: str
) -> None:
    # Cancelled after 0, 1, 2, ... turns of the event loop: at every await there is on the way.
    ends: set[str] = set()
    for turns in range(150):
        tasks = [asyncio.create_task(run(pool, department(f"{turns} {n}"))) for n in range(8)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            ends.add(type(result).__name__)
    assert "CancelledError" in ends
    assert ends <= {"CancelledError", "Outcome"}
    assert sql(database, "SELECT FROM departments GROUP BY name HAVING count(*) > 1") == []
    await nothing_left_behind(pool)


async def test_the_deadline_does_not_wait_for_a_server_that_does_not_answer(pool: Pool) -> None:
    async def work(connection: Connection) -> None:
        process = connection.info.backend_pid
        os.kill(process, signal.SIGSTOP)
        stopped.append(process)
        await connection.execute(b"SELECT 1")

    stopped: list[int] = []
    started = monotonic()
    try:
        with pytest.raises(AttemptsExhausted):
            await run(pool, work, seconds=0.3)
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    assert monotonic() - started < 0.3 + 1, "a request ends within its deadline and a second"


async def test_a_connection_that_comes_to_one_who_was_cancelled_is_not_lost(database: str) -> None:
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        connection = await pool.take(LIMIT)
        waiting = asyncio.create_task(pool.take(LIMIT))
        await asyncio.sleep(0)
        assert pool.waiting == 1
        pool.give_back(connection)  # to the one that waits, who has not run since
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await nothing_left_behind(pool)


@pytest.mark.parametrize("by", ["deadline", "cancellation"])
async def test_who_stops_waiting_ends_the_statement_in_the_server(by: str, database: str) -> None:
    working = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE query LIKE 'SELECT pg_sleep%%' AND datname = current_database()"
    )

    async def work(connection: Connection) -> None:
        await connection.execute(b"SELECT pg_sleep(3600)")

    # So long a deadline that no statement_timeout, which is as long, ends the statement.
    settings = Settings(database_url=database, pool_size=1, retry_deadline=3600)
    async with open_pool(settings) as pool:
        seconds = 0.5 if by == "deadline" else SECONDS
        task = asyncio.create_task(run(pool, work, seconds=seconds))
        await asyncio.to_thread(until, lambda: sql(database, working) == [(1,)])
        if by == "cancellation":
            task.cancel()
        with pytest.raises((AttemptsExhausted, asyncio.CancelledError)):
            await task
        await asyncio.to_thread(until, lambda: sql(database, working) == [(0,)])
        assert (await run(pool, department("Ada"))).created


async def test_a_connection_that_broke_before_commit_is_not_taken_for_committed(
    pool: Pool, database: str
) -> None:
    calls = 0

    async def work(connection: Connection) -> Outcome:
        nonlocal calls
        calls += 1
        outcome = await get_or_create(connection, "departments", ("Ada",))
        if calls == 1:
            connection.pgconn.finish()
        return outcome

    attempts = Attempts()
    assert (await run(pool, work, attempts=attempts)).created
    assert attempts == Attempts(begun=2, retried=["08006"])
    assert sql(database, "SELECT count(*) FROM departments") == [(1,)]


async def test_a_column_that_changes_its_type_is_a_retry(pool: Pool, database: str) -> None:
    for _ in range(pool.size):
        await run(pool, department("Ada"))
    sql(database, "ALTER TABLE departments ALTER name TYPE varchar(300)")
    for _ in range(2 * pool.size):
        assert not (await run(pool, department("Ada"))).created


async def test_who_gave_up_waiting_is_not_counted_as_waiting(database: str) -> None:
    settings = Settings(database_url=database, pool_size=1, pool_queue=2)
    async with open_pool(settings) as pool:
        connection = await pool.take(LIMIT)
        for _ in range(5):
            with pytest.raises(NoConnection):
                await run(pool, department("Ada"), seconds=0.05)
        assert pool.waiting == 0, "nor kept in memory"
        pool.give_back(connection)
        assert (await run(pool, department("Ada"))).created


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("application_name", "onerow"),
        ("statement_timeout", "20s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "20s"),
        ("enable_seqscan", "off"),
        ("TimeZone", "UTC"),
    ],
)
async def test_every_connection_is_set_up(setting: str, value: str, pool: Pool) -> None:
    async with borrowed(pool) as connection:
        row = await one(connection, f"SELECT current_setting('{setting}') AS value".encode())
    assert row["value"] == value


async def test_an_outage_leaves_nothing_in_memory(database: str) -> None:
    url = make_conninfo(database, host="127.0.0.1", port="1")  # where nobody listens
    async with open_pool(Settings(database_url=url, pool_size=2)) as pool:
        for _ in range(20):
            with pytest.raises(PoolTimeout):
                await pool.take(0.05)
        assert len(pool._source._waiting) <= pool.size
        assert pool.waiting == 0


async def test_a_connection_in_a_transaction_is_not_handed_on(database: str) -> None:
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        connection = await pool.take(LIMIT)
        await connection.execute(b"BEGIN")
        pool.give_back(connection)
        assert connection.closed
        await nothing_left_behind(pool)


async def test_what_was_made_before_a_drain_is_replaced(database: str) -> None:
    async with open_pool(Settings(database_url=database, pool_size=2)) as pool:
        used, idle = await pool.take(LIMIT), await pool.take(LIMIT)
        pool.give_back(idle)
        await pool.drain()
        pool.give_back(used)
        taken = [await pool.take(LIMIT) for _ in range(pool.size)]
        assert not {used, idle} & {*taken}
        for connection in taken:
            pool.give_back(connection)


async def test_a_server_that_answers_a_cancel_keeps_its_other_connections(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy server may take longer, and would count as silent.
    patient = partialmethod(psycopg.AsyncConnection.cancel_safe, timeout=LIMIT)
    monkeypatch.setattr(Connection, "cancel_safe", patient)
    monkeypatch.setattr(pipeline, "ANSWER_TIMEOUT", LIMIT)

    async def work(connection: Connection) -> None:
        await connection.execute(b"SELECT pg_sleep(3600)")

    async with open_pool(Settings(database_url=database, pool_size=2)) as pool:
        await filled(pool)
        other = await pool.take(LIMIT)
        with pytest.raises(AttemptsExhausted):
            await run(pool, work, seconds=0.3)
        replacement = await pool.take(LIMIT)
        pool.give_back(other)
        assert pool.idle == 1, "only the one that was cancelled is replaced"
        pool.give_back(replacement)


async def test_tables_that_moved_on_the_search_path_are_found_by_new_sessions(
    database: str,
) -> None:
    url = make_conninfo(database, options="-c search_path=public,elsewhere")
    async with open_pool(Settings(database_url=url, pool_size=1)) as pool:
        assert (await run(pool, department("Ada"))).created
        sql(database, "CREATE SCHEMA elsewhere")
        for table in TABLES:
            sql(database, f"ALTER TABLE {table} SET SCHEMA elsewhere")
        with pytest.raises(SchemaMissing):
            await run(pool, department("Ada"))
        await pool.drain()
        assert not (await run(pool, department("Ada"))).created


async def test_a_deadline_that_is_over_costs_no_connection(pool: Pool) -> None:
    with pytest.raises(NoConnection):
        await run(pool, department("Ada"), seconds=0)
    assert pool.idle == pool.size


async def test_a_connection_that_arrives_while_the_pool_closes_is_closed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Connection] = []
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        getconn = pool._source.getconn

        async def late(*arguments: Any) -> Any:
            if made:
                raise PoolClosed
            made.append(await getconn(*arguments))
            pool._closed = True  # the end comes before the task that has asked for it goes on
            return made[0]

        monkeypatch.setattr(pool._source, "getconn", late)
        await asyncio.to_thread(until, lambda: bool(made) and pool.missing == 0)
        assert pool.idle == 0
        assert made[0].closed
