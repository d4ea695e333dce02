"""What is done at once under the gate beside HTTP requests, and what judges the outcome."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http.client import HTTPException
from itertools import combinations_with_replacement
from random import Random
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection

from db.prove.orders import dependent, draw, explore, independent
from db.prove.scene import KINDS, NONE, ONE, Answer, Kind, Scene, scene
from db.prove.schedule import Mismatch, Request, Run, Turn, parse, replay
from db.way_out.change import connect
from db.way_out.guard import guard
from db.way_out.merge import merge
from tests.proof.linearizability import Call, Key, NotLinearizable, Row, check, history
from tests.support.others import make_others, others

ADA = Key("employees", "Ada", 1)
GRACE = Key("employees", "Grace", 1)

TWO: LiteralString = f"{ONE}INSERT INTO employees (department_id, name) VALUES (1, 'Ada');"

ELSEWHERE: LiteralString = f"""{NONE}
INSERT INTO departments (id, name) VALUES (2, 'Sales');
INSERT INTO employees (department_id, name) VALUES (2, 'Ada');
"""

# What a merge and a writer that goes around the service take the place of a kind of request with.
MERGE, FOREIGN = "merge", "foreign writer"

# Makes the tables as they are before a schedule, by how many rows the key has, or by where it is.
ROWS = {"none": NONE, "one": ONE, "two": TWO, "elsewhere": ELSEWHERE}

# The row that a merge retires is read beside it alone.
SECOND = "read the second"
REQUESTS = {**KINDS, SECOND: Kind("GET", "/employees/2")}

# The order of a history's calls is that of the turns, so a final look comes after all of them.
END = 10_000.0


class Meeting(NamedTuple):
    """Requests that meet, by what they do, the rows before, and how they begin."""

    kinds: tuple[str, ...]
    rows: str
    first: str = ""  # the turns with which every order begins

    def __str__(self) -> str:
        return f"{' | '.join(self.kinds)}, {self.rows} before {self.first}".strip()

    @property
    def guarded(self) -> bool:
        """Whether the guard is on, without which a foreign writer may make a second row."""
        return FOREIGN in self.kinds


Choice = tuple[int, str]  # the number of a request, from 0, and the fault of its turn

# All pairs, but for a merge beside a foreign writer, whom the guard refuses from before to after.
PAIRS = [
    *(
        Meeting(kinds, rows)
        for kinds in combinations_with_replacement([*KINDS, FOREIGN], 2)
        for rows in ["none", "one"]
    ),
    *(Meeting((kind, MERGE), "two") for kind in [*REQUESTS, MERGE]),
]


# Meetings that begin as no pair does: with a request whose first three attempts are cut short, and
# with one whose answer is held back while its row is deleted, and asked for again.
LATER = [
    Meeting(("create", "create"), "none", "1:BEGIN!lost 1:BEGIN!lost 1:BEGIN!lost"),
    Meeting(
        ("create", "delete", "create"),
        "none",
        "1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT!held 2:BEGIN 2:snapshot 2:delete 2:COMMIT",
    ),
    Meeting(
        ("array", "delete", "array"),
        "none",
        "1:BEGIN 1:snapshot 1:select_many 1:insert_many 1:COMMIT!held"
        " 2:BEGIN 2:snapshot 2:delete 2:COMMIT",
    ),
    *(
        Meeting(
            (kind, "delete", kind),
            "one",
            f"1:{file}!held 2:BEGIN 2:snapshot 2:delete 2:COMMIT",
        )
        for kind, file in (("read", "get"), ("list", "list"))
    ),
]


class Verdict(NamedTuple):
    """A schedule that has run, what came out, and what is wrong with that, "" if nothing is."""

    schedule: str
    told: tuple[str, ...]  # what each request was told
    rows: tuple[Row, ...]  # what is in the tables
    wrong: str

    def outcome(self, meeting: Meeting) -> tuple[Any, ...]:
        """Return what came out, whichever of equal requests was told which."""
        return *sorted(zip(meeting.kinds, self.told, strict=True)), self.rows

    @property
    def turns(self) -> list[Turn]:
        return parse(self.schedule)


@asynccontextmanager
async def stage(
    database: str,
    *command: str,
    guarded: bool = False,
    merging: Callable[[str], str] | None = None,
    at_any_age: bool = True,
    crash: Callable[[], None] | None = None,
    **settings: str,
) -> AsyncIterator["Stage"]:
    """Start the service behind the gate, with the guard on if `guarded`.

    `merging` merges the database of a URL in the place of db.way_out.merge. `at_any_age` is that of
    db.prove.scene. `crash` kills the server and starts it, for the turn of that name.
    """
    if guarded:
        with connect(database, "guard") as connection:
            guard(connection, "on", ["employees"])
    make_others(database)
    # Whoever imports a variant of the service has PIPELINE in the environment.
    settings = {"PIPELINE": "1", "POOLER": "0", **settings}
    async with scene(database, *command, at_any_age=at_any_age, **settings) as there:
        yield Stage(there, database, merging or merge_all, crash, "POOL_QUEUE" in settings)


class Stage:
    """A scene, and how requests of any kind are run in it."""

    def __init__(
        self,
        there: Scene,
        database: str,
        merging: Callable[[str], str],
        crash: Callable[[], None] | None,
        may_refuse: bool,
    ) -> None:
        """`may_refuse` is whether a request may be turned away before it has begun."""
        self.scene = there
        self._database = database
        self._merging = merging
        self._crash = crash
        self._may_refuse = may_refuse
        self._before: list[Row] = []

    async def every(self, meeting: Meeting, prune: Any = independent) -> AsyncIterator[Verdict]:
        """Run every order of the requests, of those that come to the same only one."""
        kinds = () if prune is dependent else meeting.kinds
        async for run in explore(partial(self._begin, meeting), prune, kinds):
            yield await self._judged(run, meeting)

    async def drawn(self, meeting: Meeting, random: Random) -> Verdict:
        """Run the requests in an order that is drawn."""
        return await self._judged(await draw(await self._begin(meeting), random), meeting)

    async def chosen(self, meeting: Meeting, choices: Sequence[Choice]) -> Verdict:
        """Run the requests by choices; the first that can has the turn of one that cannot go on."""
        run = await self._begin(meeting)
        for number, fault in choices:
            if possible := await run.possible():
                turn = next((each for each in possible if each.request == number + 1), possible[0])
                await run.take(
                    turn._replace(fault=fault if turn.label not in ("", "answer") else "")
                )
        await run.finish()
        return await self._judged(run, meeting)

    async def struck(self, meeting: Meeting, turns: Sequence[Turn], random: Random) -> Verdict:
        """Run the requests in this order, and then in one that is drawn."""
        run = await self._begin(meeting)
        for turn in turns:
            await run.take(turn)
        return await self._judged(await draw(run, random), meeting)

    async def once(self, meeting: Meeting, schedule: str | Sequence[Turn]) -> Verdict:
        """Run the requests in this order."""
        turns = parse(schedule) if isinstance(schedule, str) else schedule
        run = await self._start(meeting)
        await replay(run, turns)
        return await self._judged(run, meeting)

    async def _start(self, meeting: Meeting) -> Run:
        requests = [self._request(kind) for kind in meeting.kinds]
        run = await self.scene.start(ROWS[meeting.rows], requests, self._pass_by)
        self._before = [Row(*each) for each in await self.scene.rows()]
        return run

    async def _begin(self, meeting: Meeting) -> Run:
        """Return the run behind the turns with which it begins. Raises Mismatch."""
        run = await self._start(meeting)
        try:
            for turn in parse(meeting.first):
                await run.take(turn)
        except Mismatch:
            await run.abandon()
            raise
        return run

    async def _pass_by(self, what: str) -> None:
        if what == "crash":
            assert self._crash is not None
            await asyncio.to_thread(self._crash)
            await self.scene.reconnect()
        else:
            await asyncio.to_thread(others, self._database, int(what))

    def _request(self, kind: str) -> Request:
        url = self.scene.gate.url
        if kind == MERGE:
            return partial(asyncio.to_thread, self._merging, url)
        if kind == FOREIGN:
            return partial(_write, url)
        return partial(_told, self.scene.request(REQUESTS[kind]))

    async def _judged(self, run: Run, meeting: Meeting) -> Verdict:
        after = [Row(*each) for each in await self.scene.rows()]
        calls = []
        for session, kind in zip(run.sessions, meeting.kinds, strict=True):
            assert session.task is not None
            times = (float(session.began), session.ended - 0.5)
            calls += list(_calls(session.number, kind, session.task.result(), times))
        calls.append(Call(-1, "TABLE", None, END, END, 200, tuple(after)))
        faults = any(turn.fault or not turn.request for turn in run.turns)
        broken = [(0.0, END)] if faults else []
        if self._may_refuse:
            calls = [call for call in calls if call.begun]
        told = tuple(str(each.task.result()) for each in run.sessions if each.task)
        schedule = " ".join(map(str, run.turns))
        return Verdict(schedule, told, tuple(after), _wrong(calls, self._before, broken))


async def _told(request: Request) -> Any:
    """Send a request; of one whose worker is killed, say what a proxy would."""
    try:
        return await request()
    except (OSError, HTTPException):
        return Answer(502, None, {})


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
    method = "LIST" if kind == "list" else REQUESTS[kind].method
    target: Any = {
        "create": ADA,
        "array": ADA,
        "delete": ("employees", 1),
        "read": ("employees", 1),
        SECOND: ("employees", 2),
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


def merge_all(url: str) -> str:
    """Merge the employees; return how many rows that retired."""
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
