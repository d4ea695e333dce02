"""The service broken in one way, which the proof must find: `python -m tests.proof.variants NAME`.

Before each statement and each end of a transaction it pauses for up to PAUSE seconds, as a network
would make it do, so that requests overlap. "none" has the pauses only, and must pass; and so must
"pipeline", where they come after each round trip. The broken ones are without it, but for those
that say so.
"""

import asyncio
import importlib
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from time import sleep
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncTransaction, IsolationLevel, errors
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult

import db.pipeline
import db.pool
from db.embedded import unwind_on_signals
from db.pool import Connection, Pool
from db.queries import QUERIES, Outcome
from db.settings import Settings
from db.transaction import Attempts, serializable
from tests.proof.schedules import ageless
from web.serving import serve

os.environ["PIPELINE"] = str(int(os.environ.get("VARIANT", "").startswith("pipeline")))
service: Any = importlib.import_module("app")  # any of its names may be replaced

PAUSE = 0.003  # seconds


# An insert that does not look first, as the service's own does.
BLIND_INSERT = {
    "departments": b"INSERT INTO departments (name) VALUES ($1) RETURNING id, name, created_at",
    "employees": b"INSERT INTO employees (department_id, name) VALUES ($1, $2)"
    b" RETURNING id, department_id, name, created_at",
}


def at(level: IsolationLevel) -> None:
    """Every transaction at a weaker level."""
    configure = db.pool._configure

    async def weaker(settings: Settings, connection: Connection) -> None:
        await configure(settings, connection)
        await connection.set_isolation_level(level)

    db.pool._configure = weaker


def isolation_set_once() -> None:
    """SERIALIZABLE is set before the retry loop, and is gone after the first rollback.

    Its insert does not look first either, as in the recipes that do this.
    """
    for resource, statement in BLIND_INSERT.items():
        QUERIES[f"{resource}/insert"] = statement

    async def once(pool: Pool, work: Any, *, attempts: Attempts, **_: Any) -> Any:
        async with pool.connection() as connection:
            await connection.set_isolation_level(None)
            level = b"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"
            while True:
                attempts.begun += 1
                try:
                    async with connection.transaction():
                        if level:
                            await connection.execute(level)
                            level = b""
                        result = await work(connection)
                except (errors.SerializationFailure, errors.DeadlockDetected):
                    continue
                return result

    service.serializable = once


def at_any_age() -> None:
    """An insert may come as late as it likes, as if PostgreSQL remembered all conflicts."""
    for resource in BLIND_INSERT:
        insert = f"{resource}/insert"
        QUERIES[insert] = db.pipeline.STATEMENTS[insert] = ageless(insert)


def no_retry() -> None:
    """The first serialization failure is the caller's."""
    at_any_age()  # a busy machine makes late inserts, which are no serialization failures

    async def once(pool: Pool, work: Any, **_: Any) -> Any:
        async with pool.connection() as connection, connection.transaction():
            return await work(connection)

    service.serializable = once


def retry_of_only_the_insert() -> None:
    """What the first attempt did not find is not looked for again."""

    async def broken(pool: Pool, work: Any, **options: Any) -> Any:
        tried = False

        async def only_the_insert(connection: Connection) -> Any:
            nonlocal tried
            if tried and isinstance(work, partial):
                return await insert(connection, **work.keywords)
            tried = True
            return await work(connection)

        return await serializable(pool, only_the_insert, **options)

    service.serializable = broken


async def insert(connection: Connection, resource: str, key: Any, **_: Any) -> Outcome:
    row = await (await connection.execute(BLIND_INSERT[resource], key)).fetchone()
    assert row is not None
    return Outcome(row, 1, True)


def select_outside_the_transaction() -> None:
    """The lookup is a transaction of its own, and the insert another."""

    async def broken(pool: Pool, work: Any, **options: Any) -> Any:
        if not isinstance(work, partial):  # a DELETE
            return await serializable(pool, work, **options)
        async with pool.connection() as connection:
            query = QUERIES[f"{work.keywords['resource']}/select"]
            row = await (await connection.execute(query, work.keywords["key"])).fetchone()
        if row is not None:
            return Outcome(row, row.pop("copies"), False)
        return await serializable(pool, partial(insert, **work.keywords), **options)

    service.serializable = broken


def answer_before_commit() -> None:
    """The answer is out when the work is done, and COMMIT may still fail."""
    at_any_age()  # it has no retry for a late insert
    going_on = set()

    async def broken(pool: Pool, work: Any, **_: Any) -> Any:
        done = asyncio.get_running_loop().create_future()

        async def transaction() -> None:
            try:
                async with pool.connection() as connection, connection.transaction():
                    done.set_result(await work(connection))
            except psycopg.Error as error:
                if not done.done():
                    done.set_exception(error)

        task = asyncio.create_task(transaction())
        going_on.add(task)
        task.add_done_callback(going_on.discard)
        try:
            return await done
        except errors.SerializationFailure:
            return await serializable(pool, work, seconds=5, attempts=Attempts())

    service.serializable = broken


def lookup_without_the_department() -> None:
    """A namesake elsewhere is taken for the employee."""
    QUERIES["employees/select"] = QUERIES["employees/select"].replace(
        b"WHERE hash_record_extended(ROW(department_id::bigint, name::text), 0::bigint)\n"
        b"          = hash_record_extended(ROW($1::bigint, $2::text), 0::bigint)\n"
        b"      AND department_id::bigint IS NOT DISTINCT FROM $1::bigint\n",
        b"WHERE $1::bigint IS NOT NULL\n",
    )


def created_flag_kept() -> None:
    """An insert that was rolled back still counts as created when the retry finds the row."""

    async def broken(pool: Pool, work: Any, **options: Any) -> Any:
        created = False

        async def remembering(connection: Connection) -> Any:
            nonlocal created
            outcome = await work(connection)
            if isinstance(outcome, Outcome):
                created = created or outcome.created
                outcome = outcome._replace(created=created)
            return outcome

        return await serializable(pool, remembering, **options)

    service.serializable = broken


def pipeline_at_repeatable_read() -> None:
    """The pipeline's BEGIN asks for less."""
    db.pipeline.STATEMENTS["begin"] = b"BEGIN ISOLATION LEVEL REPEATABLE READ"


# The service as it is, but for the pauses.
SOUND = ("none", "pipeline")

# Broken only where a creator stalls, which a workload does not make it do.
STALLING = ("insert at any age", "pipeline, insert at any age")

VARIANTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "pipeline": lambda: None,
    "insert at any age": at_any_age,
    "pipeline, insert at any age": at_any_age,
    "pipeline at REPEATABLE READ": pipeline_at_repeatable_read,
    "READ COMMITTED": partial(at, IsolationLevel.READ_COMMITTED),
    "REPEATABLE READ": partial(at, IsolationLevel.REPEATABLE_READ),
    "isolation set once": isolation_set_once,
    "no retry": no_retry,
    "retry of only the insert": retry_of_only_the_insert,
    "select outside the transaction": select_outside_the_transaction,
    "answer before COMMIT": answer_before_commit,
    "lookup without the department": lookup_without_the_department,
    "created flag kept": created_flag_kept,
}


def pause_before_statements() -> None:
    execute = AsyncConnection.execute

    async def later(self: Any, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(random.uniform(0, PAUSE))
        return await execute(self, *arguments, **options)

    AsyncConnection.execute = later  # type: ignore[method-assign]
    leave = AsyncTransaction.__aexit__

    async def leave_later(self: Any, *error: Any) -> Any:
        await asyncio.sleep(random.uniform(0, PAUSE))
        return await leave(self, *error)

    AsyncTransaction.__aexit__ = leave_later  # type: ignore[assignment, method-assign]
    trip = db.pipeline._results

    def later_too(pgconn: PGconn, number: int) -> PQGen[list[PGresult]]:
        results = yield from trip(pgconn, number)
        # The whole worker waits: there are two, and so it overlaps with the other.
        sleep(random.uniform(0, PAUSE))
        return results

    db.pipeline._results = later_too


if __name__ == "__main__":
    os.environ["VARIANT"] = sys.argv[1]
    unwind_on_signals()
    serve(
        "tests.proof.variants:app",
        host="127.0.0.1",
        port=0,
        workers=2,
        grace=1,
        listening=lambda url: print(url, flush=True),
    )
elif "VARIANT" in os.environ:  # imported by a worker
    pause_before_statements()
    VARIANTS[os.environ["VARIANT"]]()
    app = service.app
