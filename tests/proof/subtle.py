"""Variants that a workload seldom breaks, or never, and a schedule does."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from psycopg import errors

import db.connection
from db.connection import COMMIT, Connection
from db.pipeline import Row, Statement
from db.pool import Pool
from db.rows import Outcome, Retired, get_or_create, read, statement
from db.transaction import Attempts, transact
from tests.proof.breaking import instead, look_then_insert, rows, service

BEGIN = Statement(b"BEGIN")
REPEATABLE_READ = Statement(b"BEGIN ISOLATION LEVEL REPEATABLE READ")

Steps = Callable[[Connection, Statement, Statement], Any]  # with the select, and the insert


def creating(steps: Steps) -> None:
    """Let a creation send its two statements so; `steps` returns the rows of each."""
    serializable = Connection.serializable

    async def broken(
        self: Connection, *statements: Statement, stop_at_first_row: bool = False
    ) -> Any:
        if not stop_at_first_row:  # it is no creation of one key
            return await serializable(self, *statements)
        return await steps(self, *statements)

    Connection.serializable = broken  # type: ignore[method-assign]


async def in_order(connection: Connection, *steps: Statement) -> list[list[Row]]:
    """Send steps one by one, and return the rows of each."""
    return [await rows(connection, step) for step in steps]


def commit_failure_ignored() -> None:
    """A serialization failure at COMMIT counts as success."""

    async def steps(connection: Connection, look: Statement, insert: Statement) -> Any:
        _, found, made = await in_order(connection, db.connection.BEGIN, look, insert)
        with suppress(errors.SerializationFailure):
            await rows(connection, COMMIT)
        return found, made

    creating(steps)


def each_statement_alone() -> None:
    """INSERT ... WHERE NOT EXISTS, which many take for atomic, at READ COMMITTED."""
    creating(in_order)


def lock_under_a_snapshot() -> None:
    """An advisory lock for the key, in a transaction whose snapshot is older than the lock."""

    async def steps(connection: Connection, look: Statement, insert: Statement) -> Any:
        lock = Statement(b"SELECT pg_advisory_xact_lock(1)")
        _, _, *both, _ = await in_order(connection, REPEATABLE_READ, lock, look, insert, COMMIT)
        return both

    creating(steps)


def lock_after_the_look() -> None:
    """The table is locked before the insert, and not before the look."""

    async def steps(connection: Connection, look: Statement, insert: Statement) -> Any:
        # The insert looks again, at a snapshot of its own, unless the level keeps the first one.
        lock = Statement(b"LOCK TABLE departments, employees IN SHARE ROW EXCLUSIVE MODE")
        _, *both, _, made, _ = await in_order(
            connection, REPEATABLE_READ, look, lock, insert, COMMIT
        )
        return *both, made

    creating(steps)


def row_lock_on_no_row() -> None:
    """SELECT ... FOR UPDATE at READ COMMITTED, which locks nothing where there is no row."""

    async def steps(connection: Connection, look: Statement, insert: Statement) -> Any:
        lock = Statement(b"SELECT FROM employees FOR UPDATE")
        _, _, *both, _ = await in_order(connection, BEGIN, lock, look, insert, COMMIT)
        return both

    creating(steps)


def insert_then_look() -> None:
    """It inserts at READ COMMITTED, and rolls that back if it then sees another row of the key."""

    async def steps(connection: Connection, look: Statement, insert: Statement) -> Any:
        _, made, found = await in_order(connection, BEGIN, insert, look)
        if made and found[0]["copies"] > 1:
            await rows(connection, Statement(b"ROLLBACK"))
            made, found = [], await rows(connection, look)
        else:
            await rows(connection, COMMIT)
        return ([], made) if made else (found, [])

    creating(steps)


def repeatable_read_later() -> None:
    """The fourth attempt, and those after it, are at REPEATABLE READ."""

    async def broken(pool: Pool, work: Any, *, attempts: Attempts, **options: Any) -> Any:
        async def attempt(connection: Connection) -> Any:
            if work.func is get_or_create and attempts.begun > 3:
                return await look_then_insert(connection, work, REPEATABLE_READ)
            return await work(connection)

        return await transact(pool, attempt, attempts=attempts, **options)

    instead(broken)


def single_flight() -> None:
    """A request for a key that another one is creating gets the result of that one."""
    found_or_created = service.found_or_created
    flights: dict[str, asyncio.Future[list[Outcome]]] = {}

    async def broken(endpoint: Any, pool: Pool, items: Any, **options: Any) -> Any:
        key = f"{endpoint.name} {items}"
        if key in flights:
            outcomes = await asyncio.shield(flights[key])
            return [each._replace(created=False) for each in outcomes]
        flights[key] = asyncio.ensure_future(found_or_created(endpoint, pool, items, **options))
        try:
            return await flights[key]
        finally:
            del flights[key]

    service.found_or_created = broken


def delete_after_a_look() -> None:
    """DELETE answers what a look before it has found."""

    async def broken(connection: Connection, resource: str, id_: str) -> bool:
        found, _ = await in_order(
            connection,
            statement(connection, f"{resource}/get", [id_]),
            statement(connection, f"{resource}/delete", [id_]),
        )
        return bool(found)

    service.delete_row = broken


def retired_before_there() -> None:
    """GET first asks whether a merge has retired the row, and then for the row."""

    async def broken(pool: Pool, resource: str, id_: str, seconds: float) -> Any:
        async def ask(query: str, values: list[str]) -> list[Row]:
            async def work(connection: Connection) -> list[Row]:
                return await read(connection, query, values)

            return await transact(pool, work, seconds=seconds)

        if kept := await ask("kept", [resource, id_]):
            return Retired(str(kept[0]["kept"]))
        found = await ask(f"{resource}/get", [id_])
        return found[0] if found else None

    service.look_up = broken


SUBTLE: dict[str, Callable[[], None]] = {
    "a failure at COMMIT ignored": commit_failure_ignored,
    "each statement alone": each_statement_alone,
    "lock under a snapshot": lock_under_a_snapshot,
    "lock after the look": lock_after_the_look,
    "row lock on no row": row_lock_on_no_row,
    "insert, then look": insert_then_look,
    "REPEATABLE READ from the fourth attempt on": repeatable_read_later,
    "single flight": single_flight,
    "DELETE after a look": delete_after_a_look,
    "retired before there": retired_before_there,
}
