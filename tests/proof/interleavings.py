"""What is done at once under the gate beside HTTP requests, and what judges the outcome."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection

from db.prove.orders import explore, independent
from db.prove.scene import KINDS, NONE, ONE, Answer, Scene, scene
from db.prove.schedule import Request, Run, Turn, parse, replay
from db.way_out.change import connect
from db.way_out.guard import guard
from db.way_out.merge import merge
from tests.proof.linearizability import Call, Key, NotLinearizable, Row, check, history

ADA = Key("employees", "Ada", 1)
GRACE = Key("employees", "Grace", 1)

TWO: LiteralString = """
INSERT INTO employees (department_id, name) VALUES (1, 'Ada'), (1, 'Ada');
"""

# What a merge and a writer that goes around the service take the place of a kind of request with.
MERGE, FOREIGN = "merge", "foreign writer"

# Makes the tables as they are before a schedule, by how many rows the key has. As a replica the
# session is not stopped by the guard, if it is on.
ROWS: dict[str, LiteralString] = {
    "none": NONE,
    "one": ONE,
    "two": f"{NONE}SET session_replication_role = replica;{TWO}RESET session_replication_role;",
}

# The order of a history's calls is that of the turns, so a final look comes after all of them.
END = 10_000.0


class Pair(NamedTuple):
    """Requests that meet, by what they do, and how many rows their key has before."""

    kinds: tuple[str, ...]
    rows: str

    def __str__(self) -> str:
        return f"{' | '.join(self.kinds)}, {self.rows} before"

    @property
    def guarded(self) -> bool:
        """Whether the guard is on, without which a foreign writer may make a second row."""
        return FOREIGN in self.kinds


PAIRS = [
    Pair(kinds, rows)
    for kinds in combinations_with_replacement([*KINDS, MERGE, FOREIGN], 2)
    for rows in (["two"] if MERGE in kinds else ["none", "one"])
]


class Verdict(NamedTuple):
    """A schedule that has run, what came out, and what is wrong with that, "" if nothing is."""

    schedule: str
    outcome: str
    wrong: str


@asynccontextmanager
async def stage(
    database: str, *command: str, guarded: bool = False, **settings: str
) -> AsyncIterator["Stage"]:
    """Start the service behind the gate, with the guard on if `guarded`."""
    if guarded:
        with connect(database, "guard") as connection:
            guard(connection, "on", ["employees"])
    async with scene(database, *command, **settings) as there:
        yield Stage(there)


class Stage:
    """A scene, and how requests of any kind are run in it."""

    def __init__(self, there: Scene) -> None:
        self.scene = there

    async def every(self, pair: Pair, prune: Any = independent) -> AsyncIterator[Verdict]:
        """Run every order of the requests."""
        async for run in explore(partial(self._start, pair), prune):
            yield await self._judged(run, pair)

    async def once(self, pair: Pair, schedule: str | Sequence[Turn]) -> Verdict:
        """Run the requests in this order."""
        turns = parse(schedule) if isinstance(schedule, str) else schedule
        run = await self._start(pair)
        await replay(run, turns)
        return await self._judged(run, pair)

    async def _start(self, pair: Pair) -> Run:
        return await self.scene.start(ROWS[pair.rows], [self._request(kind) for kind in pair.kinds])

    def _request(self, kind: str) -> Request:
        url = self.scene.gate.url
        if kind == MERGE:
            return partial(asyncio.to_thread, _merge, url)
        if kind == FOREIGN:
            return partial(_write, url)
        return self.scene.request(KINDS[kind])

    async def _judged(self, run: Run, pair: Pair) -> Verdict:
        after = [Row(*each) for each in await self.scene.rows()]
        names = {"none": [], "one": [1], "two": [1, 2]}[pair.rows]
        before = [
            Row("departments", 1, "Research"),
            *(Row("employees", n, "Ada", 1) for n in names),
        ]
        calls = []
        for session, kind in zip(run.sessions, pair.kinds, strict=True):
            assert session.task is not None
            times = (float(session.began), session.ended - 0.5)
            calls += list(_calls(session.number, kind, session.task.result(), times))
        calls.append(Call(-1, "TABLE", None, END, END, 200, tuple(after)))
        faults = any(turn.fault or not turn.request for turn in run.turns)
        broken = [(0.0, END)] if faults else []
        told = [str(each.task.result()) for each in run.sessions if each.task]
        outcome = f"{told} {[tuple(row) for row in after]}"
        return Verdict(" ".join(map(str, run.turns)), outcome, _wrong(calls, before, broken))


def _wrong(calls: list[Call], before: list[Row], broken: list[tuple[float, float]]) -> str:
    copies = [Key(table, name, department) for table, _, name, department in calls[-1].rows]
    had = [Key(table, name, department) for table, _, name, department in before]
    for key in set(copies):
        if copies.count(key) > max(1, had.count(key)):
            return f"{key} gained a second row:\n{history(calls, before)}"
    for call in calls:
        if not call.answered and not broken:
            return f"not every call was answered:\n{history(calls, before)}"
    try:
        check(calls, before, broken_commits=broken)
    except NotLinearizable as error:
        return str(error)
    return ""


def _calls(client: int, kind: str, answer: Any, times: tuple[float, float]) -> list[Call]:
    """Return the calls that a request was: one, one for each item of an array, or none."""
    start, end = times
    if kind == MERGE:
        return [Call(client, "MERGE", None, start, end, 200)]
    if kind == FOREIGN:
        if answer is None:  # refused: nothing was done
            return []
        return [Call(client, "POST", ADA, start, end, 201, (Row("employees", answer, "Ada", 1),))]
    assert isinstance(answer, Answer)
    found = re.search(r"attempts=(\d+)", answer.headers.get("server-timing", ""))
    attempts = int(found[1]) if found else 1
    if kind == "array" and answer.status == 200:
        return [
            Call(client, "POST", key, start, end, item["status"], _rows(item["row"]),
                 item["duplicates"], attempts)
            for key, item in zip((ADA, GRACE), answer.body, strict=True)
        ]  # fmt: skip
    method = "LIST" if kind == "list" else KINDS[kind].method
    target: Any = {
        "create": ADA,
        "array": ADA,
        "delete": ("employees", 1),
        "read": ("employees", 1),
        "delete parent": ("departments", 1),
        "list": Key("employees", "", 1),
    }[kind]
    rows: tuple[Row, ...] = ()
    if answer.status in (200, 201):
        rows = _rows(*answer.body["items"]) if kind == "list" else _rows(answer.body)
    if answer.status == 308:
        rows = (Row("employees", int(answer.headers["location"].rpartition("/")[2]), "Ada", 1),)
    copies = int(answer.headers.get("duplicates", 1))
    return [Call(client, method, target, start, end, answer.status, rows, copies, attempts)]


def _rows(*rows: Any) -> tuple[Row, ...]:
    return tuple(Row("employees", row["id"], row["name"], row["department_id"]) for row in rows)


def _merge(url: str) -> str:
    tally = asyncio.run(merge(url, None, names=["employees"]))
    assert not tally.notes, tally.notes
    assert not tally.refused, tally.refused
    return f"merged {tally.rows['employees']}"


async def _write(url: str) -> int | None:
    """Insert at READ COMMITTED, as another application would; return the id, None if refused."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        try:
            await connection.execute("BEGIN")
            cursor = await connection.execute(
                "INSERT INTO employees (department_id, name) VALUES (1, 'Ada') RETURNING id"
            )
            row = await cursor.fetchone()
            await connection.execute("COMMIT")
        except psycopg.Error:
            await connection.execute("ROLLBACK")
            return None
    assert row is not None
    return int(row[0])
