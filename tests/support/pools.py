"""Assertions about a pool of connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import psycopg

from db.connection import Connection
from db.pipeline import Row
from db.pool import Pool
from tests.support.service import LIMIT

# The deadline, in seconds, of a transaction that is expected to end well.
SECONDS = 20.0


async def nothing_left_behind(pool: Pool) -> None:
    """Assert that every connection is back in the pool, and none of them is in a transaction."""
    taken = [await pool.take(LIMIT) for _ in range(pool.size)]
    for connection in taken:
        assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert connection.deadline == inf
        pool.give_back(connection)
    assert (await one(taken[0], ACTIVE))["count"] == 1, "only this query itself"


async def filled(pool: Pool) -> None:
    """Wait until the pool has all its connections."""
    for connection in [await pool.take(LIMIT) for _ in range(pool.size)]:
        pool.give_back(connection)


@asynccontextmanager
async def borrowed(pool: Pool) -> AsyncIterator[Connection]:
    """One connection of the pool, set up as a request has it."""
    connection = await pool.take(LIMIT)
    try:
        await connection.set_up()
        yield connection
    finally:
        pool.give_back(connection)


ACTIVE = (
    b"SELECT count(*) FROM pg_stat_activity"
    b" WHERE datname = current_database() AND xact_start IS NOT NULL"
    b" AND backend_type = 'client backend'"
)


async def one(connection: Connection, query: bytes) -> Row:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row
