"""Assertions about a pool of connections."""

from math import inf

import psycopg

from db.pool import Connection, Pool, Row
from tests.support.service import LIMIT

# The deadline, in seconds, of a transaction that is expected to end well.
SECONDS = 20.0


async def nothing_left_behind(pool: Pool) -> None:
    """Assert that every connection is back in the pool, and none of them is in a transaction."""
    taken = [await pool.getconn(LIMIT) for _ in range(pool.max_size)]
    for connection in taken:
        assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert connection.deadline == inf
        await pool.putconn(connection)
    assert (await one(taken[0], ACTIVE))["count"] == 1, "only this query itself"


ACTIVE = (
    b"SELECT count(*) FROM pg_stat_activity"
    b" WHERE datname = current_database() AND xact_start IS NOT NULL"
    b" AND backend_type = 'client backend'"
)


async def one(connection: Connection, query: bytes) -> Row:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row
