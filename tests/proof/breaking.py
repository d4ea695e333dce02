"""What the broken variants of the service are made of."""

import importlib
import os
from collections.abc import Callable
from typing import Any

from psycopg import errors

import db.connection
import web.creation
from db.connection import COMMIT, Connection
from db.pipeline import Row, Statement
from db.pool import Pool
from db.queries import QUERIES
from db.rows import Outcome, get_or_create_many, read, statement
from db.transaction import LateInsert, meaning_of, transact
from tests.proof.schedules import ageless

os.environ["PIPELINE"] = str(int(os.environ.get("VARIANT", "").startswith("pipeline")))
service: Any = importlib.import_module("app")  # any of its names may be replaced

# An insert that does not look first, as the service's own does.
BLIND_INSERT = {
    "departments": b"INSERT INTO departments (name) VALUES ($1) RETURNING id, name, created_at",
    "employees": b"INSERT INTO employees (department_id, name) VALUES ($1, $2)"
    b" RETURNING id, department_id, name, created_at",
}


def at(level: str) -> None:
    """Every transaction at a weaker level."""
    begin = f"BEGIN ISOLATION LEVEL {level}"
    db.connection.BEGIN = Statement(begin.encode(), name=b"begin")
    web.creation.get_or_create_many = many  # type: ignore[attr-defined, assignment]


async def many(connection: Connection, **options: Any) -> list[Outcome]:
    """Get or create many rows at a weaker level. Raises SerializationFailure, which is retried.

    There the insert may find a row that the select has not found. Then `next(new)` ends, which in a
    coroutine is a RuntimeError. Run again, so that only second rows give the variant away.
    """
    try:
        return await get_or_create_many(connection, **options)
    except RuntimeError as error:
        raise errors.SerializationFailure from error


def at_any_age() -> None:
    """An insert may come as late as it likes, as if PostgreSQL remembered all conflicts."""
    for resource in BLIND_INSERT:
        QUERIES[f"{resource}/insert"] = ageless(f"{resource}/insert")


async def rows(connection: Connection, step: Statement) -> list[Row]:
    """Run one step of a transaction, and roll it back if that fails."""
    return (await connection.run(step))[0]


def outcome(found: list[Row], made: list[Row], *, created: bool) -> Outcome:
    """Return what was found or made. Raises LateInsert if the transaction was too old to insert."""
    if not found and not made:
        raise LateInsert
    row = (found or made)[0]
    return Outcome(row, row.pop("copies", 1), created)


async def look_then_insert(
    connection: Connection, work: Any, *begin: Statement, look: bool = True
) -> Outcome:
    """Get or create as the recipes do: an insert, which does not look, where nothing was found."""
    resource, key = work.keywords["resource"], work.keywords["key"]
    for step in begin or (db.connection.BEGIN,):
        await rows(connection, step)
    select_ = statement(connection, f"{resource}/select", key)
    found = await rows(connection, select_) if look else []
    insert = Statement(BLIND_INSERT[resource], key)
    made = [] if found else await rows(connection, insert)
    await rows(connection, COMMIT)
    return outcome(found, made, created=not found)


def instead(broken: Callable[..., Any]) -> None:
    """Let all that is not a read go this way."""

    async def way(pool: Pool, work: Any, **options: Any) -> Any:
        return await (transact if work.func is read else broken)(pool, work, **options)

    service.transact = web.creation.transact = way  # type: ignore[attr-defined]


async def on_one(pool: Pool, work: Callable[[Connection], Any]) -> Any:
    """Run it once, on one connection. Raises LateInsert as transact() understands it."""
    connection = await pool.take(5)
    try:
        await connection.set_up()
        return await work(connection)
    except errors.InvalidTextRepresentation as error:
        raise meaning_of(error) from error.__cause__
    finally:
        pool.give_back(connection)
