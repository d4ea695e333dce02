"""Runs the steps of concurrent requests one at a time, on real connections, in a chosen order."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from functools import cache

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel

from db.prove import scene
from db.queries import QUERIES
from tests.support.service import LIMIT

# isolationtester asks this, too: does the first session wait for a lock of one of the others, or,
# at SERIALIZABLE, for a safe snapshot?
BLOCKED = b"SELECT pg_isolation_test_session_is_blocked($1, $2::int[])"

STEPS = ("select", "insert", "commit")

AGE, AGELESS = scene.AGE.encode(), scene.AGELESS.encode()


@cache  # tests.proof.variants puts the result into QUERIES, and a second call would not find AGE
def ageless(query: str) -> bytes:
    """Return the SQL of a file, with a limit to the transaction's age that no test reaches."""
    text = QUERIES[query]
    # The copies that a service under the gate reads have no such limit any more.
    assert (AGE in text or AGELESS in text) == query.endswith("insert")
    return text.replace(AGE, AGELESS)


@dataclass
class Session:
    """One request, which selects the key, inserts it if it was not found, and commits."""

    name: str
    connection: AsyncConnection
    key: tuple[str | int, ...]
    found: int | None = None  # the id that the request would answer
    failed: str = ""  # "step SQLSTATE", or "insert none" where the insert made no row
    blocked: list[str] = field(default_factory=list)  # the steps that had to wait
    committed: bool = False
    running: "asyncio.Task[None] | None" = None

    async def step(self, name: str) -> None:
        """Run one step, unless one before it has failed."""
        if self.failed:
            return
        try:
            if name == "select":
                # psycopg sends BEGIN first. The select takes the snapshot.
                await self._run("select")
            elif name == "insert" and self.found is None:
                await self._run("insert")
                if self.found is None:
                    self.failed = "insert none"
                    await self.connection.rollback()
            elif name == "commit":
                await self.connection.commit()
                self.committed = True
        except psycopg.Error as error:
            self.failed = f"{name} {error.sqlstate}"
            await self.connection.rollback()

    async def _run(self, query: str) -> None:
        cursor = await self.connection.execute(ageless(f"employees/{query}"), self.key)
        row = await cursor.fetchone()
        if row is not None:
            self.found = row[0]


async def connect(database: str, level: IsolationLevel) -> AsyncConnection:
    connection = await AsyncConnection.connect(
        database, cursor_factory=AsyncRawCursor, options="-c enable_seqscan=off"
    )
    await connection.set_isolation_level(level)
    return connection


async def run(
    sessions: dict[str, Session], schedule: Iterable[tuple[str, str]], monitor: AsyncConnection
) -> None:
    """Run (session, step) in this order.

    A step that blocks is left waiting and the schedule goes on, as in isolationtester; later steps
    of the same session queue up behind it.
    """
    pids = [session.connection.info.backend_pid for session in sessions.values()]
    for name, step in schedule:
        session = sessions[name]
        waiting = session.running is not None and not session.running.done()
        session.running = asyncio.create_task(_after(session.running, session.step(step)))
        if not waiting and await _blocks(session, pids, monitor):
            session.blocked.append(step)
        # Where this step has ended another one's wait, that one must end before the next step.
        for other in sessions.values():
            if other.running is not None and not other.running.done():
                await _blocks(other, pids, monitor)
    for session in sessions.values():
        if session.running is not None:
            await asyncio.wait_for(session.running, LIMIT)


async def _after(earlier: "asyncio.Task[None] | None", step: Coroutine[None, None, None]) -> None:
    if earlier is not None:
        await earlier
    await step


async def _blocks(session: Session, pids: list[int], monitor: AsyncConnection) -> bool:
    """Wait until the step is done or PostgreSQL says that it is blocked; tell which."""
    assert session.running is not None
    pid = session.connection.info.backend_pid
    async with asyncio.timeout(LIMIT):
        while True:
            # A step that does not block takes about a millisecond.
            done, _ = await asyncio.wait({session.running}, timeout=0.002)
            if done:
                return False
            cursor = await monitor.execute(BLOCKED, [pid, pids])
            row = await cursor.fetchone()
            if row is not None and row[0]:
                return True
