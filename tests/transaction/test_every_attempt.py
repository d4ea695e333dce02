"""Every attempt of a request, on every connection and for every resource, is like the first one."""

import asyncio
import random
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from db import transaction
from db.connection import Connection
from db.engine import POSTGRESQL
from db.pipeline import Statement
from db.pool import Pool, open_pool
from db.resources import RESOURCES
from db.rows import Outcome, delete, look_up
from db.settings import Settings
from db.transaction import (
    PAUSE,
    PAUSE_CAP,
    Attempts,
    InsertTooLate,
    LateInsert,
    NotReplicated,
    SchemaMissing,
    Unavailable,
    transact,
)
from tests.support.pools import SECONDS, one
from tests.support.service import LIMIT, sql
from tests.support.triggers import make_trigger
from web.creation import found_or_created
from web.endpoint import endpoints

pytestmark = pytest.mark.anyio

ENDPOINTS = {each.name: each for each in endpoints(RESOURCES, POSTGRESQL)}

# The key of the row that a test creates, and of the department that an employee is in.
KEYS = {"departments": ["Ada"], "employees": ["1", "Ada"]}

each_resource = pytest.mark.parametrize("resource", KEYS)

# The ways in which statements are sent, as settings.
WAYS: list[dict[str, Any]] = [{"pipeline": True}, {"pipeline": False}, {"pooler": True}]
each_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture
def department(database: str) -> str:
    """The URL of a database with department 1."""
    sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    return database


def trigger(database: str, table: str, body: str) -> None:
    """Run these statements of PL/pgSQL before each row is inserted or deleted."""
    sql(database, "CREATE SEQUENCE attempt")  # which counts on where a transaction is rolled back
    body += " RETURN coalesce(NEW, OLD);"
    make_trigger(database, table, body, "BEFORE INSERT OR DELETE", name=f"before_{table}")


async def create(
    pool: Pool, resource: str, attempts: Attempts | None = None, lock_after: int | None = None
) -> Outcome:
    """Create the row of KEYS, as a POST does, or one with an array if there is `lock_after`."""
    (outcome,) = await found_or_created(
        ENDPOINTS[resource],
        pool,
        [KEYS[resource]],
        seconds=SECONDS,
        attempts=attempts or Attempts(),
        lock_after=lock_after,
    )
    return outcome


# What each transaction of a request is


@each_resource
@each_way
async def test_every_write_is_serializable(
    resource: str, way: dict[str, Any], department: str
) -> None:
    failures = 5
    trigger(
        department,
        resource,
        "IF current_setting('transaction_isolation') <> 'serializable' THEN"
        " RAISE 'not serializable'; END IF;"
        f" IF mod(nextval('attempt'), {failures + 1}) > 0"
        " THEN RAISE serialization_failure; END IF;",
    )
    settings = Settings(database_url=department, pool_size=2, **way)
    async with open_pool(settings) as pool:
        for lock_after in (None, 0, 9):
            attempts = Attempts()
            created = await create(pool, resource, attempts, lock_after)
            assert created.created
            # An array that is late has counted an attempt before, and so fails five times more.
            assert attempts.retried.count("40001") >= failures

            async def work(connection: Connection, id_: str = str(created.row["id"])) -> bool:
                return await delete(connection, resource, id_)

            attempts = Attempts()
            assert await transact(pool, work, seconds=SECONDS, attempts=attempts)
            assert attempts.retried == ["40001"] * failures


@each_resource
@pytest.mark.parametrize("lock_after", [None, 9])
async def test_a_violation_of_the_keys_own_constraint_is_another_creators(
    resource: str, lock_after: int | None, pool: Pool, department: str
) -> None:
    trigger(
        department,
        resource,
        "IF nextval('attempt') <= 3 THEN"
        f" RAISE unique_violation USING CONSTRAINT = '{resource}_key'; END IF;",
    )
    attempts = Attempts()
    assert (await create(pool, resource, attempts, lock_after)).created
    assert [each for each in attempts.retried if each != "late"] == ["23505"] * 3
    other = "employees" if resource == "departments" else "departments"
    sql(
        department,
        f"CREATE OR REPLACE FUNCTION before_{resource}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE unique_violation USING CONSTRAINT = '{other}_key'; END $$",
    )
    sql(department, f"ALTER TABLE {resource} DISABLE TRIGGER before_{resource}")
    sql(department, f"DELETE FROM {resource} WHERE name = 'Ada'")
    sql(department, f"ALTER TABLE {resource} ENABLE TRIGGER before_{resource}")
    attempts = Attempts()
    with pytest.raises(errors.UniqueViolation):
        await create(pool, resource, attempts, lock_after)
    assert [each for each in attempts.retried if each != "late"] == ["23505"]


# The time that they have


@pytest.fixture
def waits(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list that gets the seconds for which each request for a connection would wait."""
    found: list[float] = []
    take = pool.take

    async def taking(seconds: float, *, again: bool = False) -> Connection:
        found.append(seconds)
        await asyncio.sleep(0.02)  # so that with one deadline each has so much less
        return await take(seconds, again=again)

    monkeypatch.setattr(pool, "take", taking)
    return found


async def test_all_attempts_have_one_deadline(pool: Pool, waits: list[float]) -> None:
    deadlines: list[float] = []

    async def work(connection: Connection) -> None:
        deadlines.append(connection.deadline)
        if len(deadlines) < 4:
            raise errors.SerializationFailure

    await transact(pool, work, seconds=SECONDS)
    assert len(deadlines) == 4
    assert len({*deadlines}) == 1
    assert waits == sorted({*waits}, reverse=True)


async def test_a_look_up_has_one_deadline_and_so_has_a_creation(
    pool: Pool, department: str, waits: list[float]
) -> None:
    # It lets one attempt fail, as if the parent had gone, so that the parent is looked for.
    trigger(
        department,
        "employees",
        "IF nextval('attempt') = 1 THEN RAISE foreign_key_violation; END IF;",
    )
    assert await look_up(pool, "departments", "404", SECONDS) is None
    assert len(waits) == 4
    assert all(before - after > 0.019 for before, after in pairwise(waits))
    waits.clear()
    assert (await create(pool, "employees")).created
    assert len(waits) >= 3
    assert all(before - after > 0.019 for before, after in pairwise(waits))


async def test_pauses_are_drawn_from_ranges_that_double_up_to_the_cap(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[tuple[float, float]] = []
    pauses: list[float] = []
    failures = 12

    def highest(low: float, high: float) -> float:
        ranges.append((low, high))
        return high

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def work(_connection: Connection) -> None:
        if len(pauses) < failures:
            raise errors.SerializationFailure

    monkeypatch.setattr(random, "uniform", highest)
    monkeypatch.setattr(asyncio, "sleep", pause)
    await transact(pool, work, seconds=SECONDS)
    assert ranges == [(0, min(PAUSE_CAP, PAUSE * 2**n)) for n in range(failures)]
    assert pauses == [high for _, high in ranges]
    assert pauses[-1] == PAUSE_CAP


async def test_inserts_that_are_late_again_and_again_are_given_up_after_half_of_the_time(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = now = monotonic()  # a clock that only the pauses move

    async def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def work(_connection: Connection) -> None:
        raise LateInsert

    monkeypatch.setattr(transaction, "monotonic", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", pause)
    with pytest.raises(InsertTooLate):
        await transact(pool, work, seconds=SECONDS)
    assert SECONDS / 2 < now - begun <= SECONDS / 2 + PAUSE_CAP


# The connections that they have


async def test_who_comes_after_a_commit_that_no_standby_has_is_served(database: str) -> None:
    async def committed(connection: Connection) -> None:
        connection.replicated = False  # as the server's warning has it

    async def reads(connection: Connection) -> list[Any]:
        return await connection.run(Statement(b"SELECT 1 AS one"))

    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        with pytest.raises(NotReplicated):
            await transact(pool, committed, seconds=SECONDS)
        assert await transact(pool, reads, seconds=SECONDS) == [[{"one": 1}]]


async def test_a_failure_costs_no_connection(department: str) -> None:
    # The first attempt fails at the insert, and the second one at COMMIT.
    trigger(
        department,
        "departments",
        "IF nextval('attempt') = 1 THEN RAISE serialization_failure; END IF;",
    )
    failing = "IF nextval('attempt') = 3 THEN RAISE serialization_failure; END IF; RETURN NULL;"
    make_trigger(
        department, "departments", failing, "AFTER INSERT", name="at_commit", deferred=True
    )
    for pipeline in (True, False):
        sql(department, "ALTER SEQUENCE attempt RESTART")
        settings = Settings(database_url=department, pool_size=1, pipeline=pipeline)
        async with open_pool(settings) as pool:
            process = await backend(pool)
            attempts = Attempts()
            assert (await create(pool, "departments", attempts)).created
            assert [each for each in attempts.retried if each != "late"] == ["40001"] * 2
            assert await backend(pool) == process
        sql(department, "TRUNCATE departments, employees")


async def test_a_lock_timeout_where_an_array_locks_no_table_is_not_retried(
    pool: Pool, department: str
) -> None:
    """The trigger says what the server says when lock_timeout is over."""
    trigger(
        department,
        "departments",
        "IF nextval('attempt') = 1 THEN RAISE lock_not_available; END IF;",
    )
    attempts = Attempts()
    with pytest.raises(Unavailable):
        await create(pool, "departments", attempts, lock_after=9)
    assert attempts == Attempts(begun=1)


async def test_a_statement_that_could_not_be_prepared_is_prepared_the_next_time(
    department: str,
) -> None:
    settings = Settings(database_url=department, pool_size=1)
    async with open_pool(settings) as pool:
        sql(department, "ALTER TABLE departments RENAME TO away")
        process = await backend(pool)
        for _ in range(2):
            with pytest.raises(SchemaMissing):
                await create(pool, "departments")
        sql(department, "ALTER TABLE away RENAME TO departments")
        attempts = Attempts()
        assert (await create(pool, "departments", attempts)).created
        assert [each for each in attempts.retried if each != "late"] == []
        assert await backend(pool) == process


@each_way
async def test_a_replacement_is_set_up_as_the_first_connections_are(
    way: dict[str, Any], database: str
) -> None:
    # A new session is only told what is not so already.
    name = conninfo_to_dict(database)["dbname"]
    sql(database, f"ALTER DATABASE {name} SET random_page_cost = 7")
    async with open_pool(Settings(database_url=database, pool_size=2, **way)) as pool:
        before = await sessions(pool)
        for _ in range(2):
            await pool.drain()
            after = await sessions(pool)
            assert not before.keys() & after.keys()
            assert {*map(str, after.values())} == {*map(str, before.values())}


async def backend(pool: Pool) -> int:
    """Return the process of the only connection."""
    (process,) = await sessions(pool)
    return process


async def sessions(pool: Pool) -> dict[int, list[Any]]:
    """Return how each connection and its session are set, by the process in the server."""
    found = {}
    taken = [await pool.take(LIMIT) for _ in range(pool.size)]
    for connection in taken:
        await connection.set_up()
        ((row,),) = await connection.run(Statement(SESSION_SETTINGS))
        found[connection.info.backend_pid] = [
            row["settings"],
            connection.pipeline_mode,
            connection.set_config,
            connection.isolation_level,
        ]
        # It reads what psycopg's own connections read otherwise, or not at all.
        assert [*(await one(connection, ODD_VALUES)).values()] == [7, None, "0.00000000"]
    for connection in taken:
        pool.give_back(connection)
    return found


ODD_VALUES = b"""
SELECT 7::bigint AS number, 'infinity'::timestamptz AS time, 0.00000000::numeric AS zero
"""

# What the session is told, at its start or later.
SESSION_SETTINGS = b"""
SELECT json_object_agg(name, setting ORDER BY name)::text AS settings
FROM pg_settings
WHERE source IN ('client', 'session')
"""
