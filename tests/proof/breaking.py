"""What the broken variants of the service are made of."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import db.connection
import web.creation
from db.connection import COMMIT, Connection, Row, Statement
from db.pool import Pool
from db.queries import QUERIES
from db.rows import Outcome, select, statement
from db.transaction import LateInsert, transact
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
    found = look and await rows(connection, statement(connection, f"{resource}/select", key))
    insert = Statement(BLIND_INSERT[resource], key)
    made = [] if found else await rows(connection, insert)
    await rows(connection, COMMIT)
    if found:
        return Outcome(found[0], found[0].pop("copies"), created=False)
    return Outcome(made[0], 1, created=True)


def instead(broken: Callable[..., Any]) -> None:
    """Let all that is not a read go this way."""

    async def way(pool: Pool, work: Any, **options: Any) -> Any:
        return await (transact if work.func is select else broken)(pool, work, **options)

    service.transact = web.creation.transact = way  # type: ignore[attr-defined]


async def on_one(pool: Pool, work: Callable[[Connection], Any]) -> Any:
    """Run it once, on one connection."""
    connection = await pool.take(5)
    try:
        await connection.set_up()
        return await work(connection)
    finally:
        pool.give_back(connection)
