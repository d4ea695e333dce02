"""The service broken in one way, which the proof must find: `python -m tests.proof.variants NAME`.

Before and after each message to PostgreSQL it pauses for up to PAUSE seconds, as a network would
make it do, so that requests overlap. "none" has the pauses only, and must pass, and so must
"pipeline", which sends a transaction in one message. The broken ones send a message for each
statement, but for those that say so.
"""

import asyncio
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from psycopg import errors

import db.connection
import web.creation
from db.connection import COMMIT, Connection
from db.pipeline import PipelineConnection, Statement
from db.pool import Pool
from db.queries import QUERIES
from db.rows import Outcome, get_or_create, read, statement
from db.signals import unwind_on_signals
from db.transaction import Attempts, LateInsert, transact
from tests.proof.breaking import (
    at,
    at_any_age,
    instead,
    look_then_insert,
    many,
    on_one,
    outcome,
    rows,
    service,
)
from tests.proof.subtle import SUBTLE
from web.serving import serve

PAUSE = float(os.environ.get("PAUSE", "0.003"))  # seconds


def isolation_set_once() -> None:
    """SERIALIZABLE is set before the retry loop, and is gone after the first rollback.

    Its insert does not look first either, as in the recipes that do this.
    """

    async def once(pool: Pool, work: Any, *, attempts: Attempts, **options: Any) -> Any:
        if work.func is not get_or_create:
            return await transact(pool, work, attempts=attempts, **options)
        begin = Statement(b"BEGIN")
        level = [Statement(b"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")]

        async def loop(connection: Connection) -> Outcome:
            while True:
                attempts.begun += 1
                try:
                    return await look_then_insert(connection, work, begin, *level)
                except (errors.SerializationFailure, errors.DeadlockDetected):
                    level.clear()

        return await on_one(pool, loop)

    instead(once)


def no_retry() -> None:
    """The first serialization failure is the caller's."""

    async def once(pool: Pool, work: Any, **_: Any) -> Any:
        # It goes on after a late insert, which a busy machine makes, and which is no such failure.
        while True:
            with suppress(LateInsert):
                return await on_one(pool, work)

    instead(once)


def retry_of_only_the_insert() -> None:
    """What the first attempt did not find is not looked for again."""

    async def broken(pool: Pool, work: Any, **options: Any) -> Any:
        if work.func is not get_or_create:
            return await transact(pool, work, **options)
        look = True

        async def attempt(connection: Connection) -> Outcome:
            nonlocal look
            first, look = look, False
            return await look_then_insert(connection, work, look=first)

        return await transact(pool, attempt, **options)

    instead(broken)


def select_outside_the_transaction() -> None:
    """The lookup is a transaction of its own, and the insert another."""

    async def broken(pool: Pool, work: Any, **options: Any) -> Any:
        if work.func is not get_or_create:
            return await transact(pool, work, **options)
        query = f"{work.keywords['resource']}/select"
        look = partial(read, query=query, values=work.keywords["key"])
        if found := await on_one(pool, look):
            return Outcome(found[0], found[0].pop("copies"), created=False)
        return await transact(pool, partial(look_then_insert, work=work, look=False), **options)

    instead(broken)


def answer_before_commit() -> None:
    """The answer is out when the work is done, and COMMIT may still fail."""
    going_on = set()

    async def broken(pool: Pool, work: Any, **options: Any) -> Any:
        if work.func is not get_or_create:
            return await transact(pool, work, **options)
        done = asyncio.get_running_loop().create_future()
        resource, key = work.keywords["resource"], work.keywords["key"]

        async def transaction(connection: Connection) -> None:
            await rows(connection, db.connection.BEGIN)
            found = await rows(connection, statement(connection, f"{resource}/select", key))
            made = await rows(connection, statement(connection, f"{resource}/insert", key))
            if found or made:
                done.set_result(outcome(found, made, created=not found))
            await rows(connection, COMMIT)
            if not (found or made):
                raise LateInsert

        async def alone() -> None:
            try:
                await on_one(pool, transaction)
            except (psycopg.Error, LateInsert) as error:
                if not done.done():
                    done.set_exception(error)

        task = asyncio.create_task(alone())
        going_on.add(task)
        task.add_done_callback(going_on.discard)
        try:
            return await done
        except (errors.SerializationFailure, LateInsert):
            return await transact(pool, work, **options)

    instead(broken)


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
            if work.func is not get_or_create:
                return await work(connection)
            resource, key = work.keywords["resource"], work.keywords["key"]
            await rows(connection, db.connection.BEGIN)
            found = await rows(connection, statement(connection, f"{resource}/select", key))
            made = await rows(connection, statement(connection, f"{resource}/insert", key))
            created = created or bool(made)
            await rows(connection, COMMIT)
            return outcome(found, made, created=created)

        return await transact(pool, remembering, **options)

    instead(broken)


def array_at_read_committed() -> None:
    """The statements of an array are a transaction of the server's own making."""

    async def broken(connection: Connection, **options: Any) -> Any:
        connection.serializable = connection.run  # type: ignore[method-assign, assignment]
        try:
            return await many(connection, **options)
        finally:
            del connection.serializable

    web.creation.get_or_create_many = broken  # type: ignore[attr-defined, assignment]


# The service as it is, but for the pauses.
SOUND = ("none", "pipeline")

# Broken only where a creator stalls, which a workload does not make it do.
STALLING = ("insert at any age", "pipeline, insert at any age")

VARIANTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "pipeline": lambda: None,
    "insert at any age": at_any_age,
    "pipeline, insert at any age": at_any_age,
    "pipeline, array at READ COMMITTED": array_at_read_committed,
    "pipeline at REPEATABLE READ": partial(at, "REPEATABLE READ"),
    "READ COMMITTED": partial(at, "READ COMMITTED"),
    "REPEATABLE READ": partial(at, "REPEATABLE READ"),
    "isolation set once": isolation_set_once,
    "no retry": no_retry,
    "retry of only the insert": retry_of_only_the_insert,
    "select outside the transaction": select_outside_the_transaction,
    "answer before COMMIT": answer_before_commit,
    "lookup without the department": lookup_without_the_department,
    "created flag kept": created_flag_kept,
    **SUBTLE,
}


def pause_around_messages() -> None:
    exchange = PipelineConnection._exchange

    async def later(self: PipelineConnection, *steps: Any, **how: Any) -> Any:
        await asyncio.sleep(random.uniform(0, PAUSE))
        results = await exchange(self, *steps, **how)
        await asyncio.sleep(random.uniform(0, PAUSE))
        return results

    PipelineConnection._exchange = later  # type: ignore[method-assign]


if __name__ == "__main__":
    os.environ["VARIANT"] = sys.argv[1]
    unwind_on_signals()
    serve(
        "tests.proof.variants:app",
        host="127.0.0.1",
        port=0,
        workers=int(os.environ.get("WORKERS", "2")),
        grace=1,
        listening=lambda url: print(url, flush=True),
    )
elif "VARIANT" in os.environ:  # imported by a worker
    pause_around_messages()
    VARIANTS[os.environ["VARIANT"]]()
    app = service.app
