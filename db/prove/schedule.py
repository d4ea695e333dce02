"""Runs requests step by step, in the order of a schedule."""

import asyncio
from asyncio import Task
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

from db.prove.gate import ASK, Gate
from db.prove.line import Line

# Seconds that a step may take. It takes milliseconds, and after a deadlock the server's second.
LIMIT = 30.0


class Turn(NamedTuple):
    """Which request does what next, as `1:select` in a schedule, and what becomes of it.

    `1:COMMIT!lost` cuts its connection before the server has the step, and `1:COMMIT!unanswered`
    when the server has answered it. `1:COMMIT!killed` ends the backend in place of the step, and
    `1:COMMIT!orphaned` kills the worker of the service that has sent it. `1:COMMIT!held` holds the
    answer back until the turn `1:answer`. Request 0 is nobody's: `0:1500` lets so many other
    transactions pass, `0:60ms` so much time, and at `0:crash` the server is killed and started.
    """

    request: int  # from 1
    label: str
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.request}:{self.label}{'!' * bool(self.fault)}{self.fault}"


FAULTS = ("lost", "unanswered", "killed", "held")


def parse(text: str) -> list[Turn]:
    """Return the turns of a schedule as str() of them, with blanks between, says it."""
    turns = []
    for word in text.split():
        number, _, rest = word.partition(":")
        label, _, fault = rest.partition("!")
        turns.append(Turn(int(number), label, fault))
    return turns


class Mismatch(Exception):
    """The schedule does not fit: the request has another step next, or none."""


Request = Callable[[], Awaitable[Any]]  # sends itself, and returns its answer
Others = Callable[[str], Awaitable[None]]


@dataclass
class Session:
    """A request, and the connection that it has at the moment."""

    number: int
    request: Request
    task: Task[Any] | None = None
    line: Line | None = None
    transaction: int = 0  # the line's, by its number
    acted: bool = False  # whether it has taken a turn in which it could see or do anything
    began: int = -1  # how many turns there were before that
    ended: int = -1  # how many there were when it had its answer
    queued: bool = False  # whether it waits in the service until a connection is free

    @property
    def done(self) -> bool:
        return self.task is not None and self.task.done()


class Run:
    """Some requests, each of which stops before each of its steps."""

    def __init__(
        self, gate: Gate, requests: Iterable[Request], others: Others | None = None
    ) -> None:
        """`others` does what is in a turn of nobody's, but for letting time pass."""
        self.sessions = [Session(n, each) for n, each in enumerate(requests, 1)]
        self.turns: list[Turn] = []
        self._gate = gate
        self._others = others
        gate.is_open = False

    @property
    def done(self) -> bool:
        """Whether all requests are answered, and nothing waits for a turn."""
        return all(session.done for session in self.sessions) and not self._held()

    async def possible(self) -> list[Turn]:
        """Return the turns that are possible now, none if all requests are answered.

        A request that is not sent yet has the label "".
        """
        async with asyncio.timeout(LIMIT):
            while not (found := self._held()) and not self.done:
                await self._gate.changed.wait()  # the server will end the deadlock
                await self._settle(self.sessions[0])
        return found

    async def reach(self, number: int) -> None:
        """Wait until a turn of this request is possible, as it was in a run of the same turns.

        A step that takes long may have been taken for a blocked one.
        """
        async with asyncio.timeout(LIMIT):
            while number not in (turn.request for turn in self._held()):
                await self._gate.changed.wait()
                await self._settle(self.sessions[number - 1])

    async def take(self, turn: Turn) -> None:
        """Let this step through; return when each request is stopped, blocked or answered.

        A request is sent with its first step. The label "" stands for any. Raises Mismatch.
        """
        if turn.request == 0:
            await self._pass_by(turn)
            return
        session = self.sessions[turn.request - 1]
        is_new = session.task is None
        if session.task is None:
            session.task = asyncio.ensure_future(session.request())
            session.task.add_done_callback(lambda _: self._gate.changed.set())
            await self._settle(session)
        step = session.line.waits if session.line else None
        label = step.label if step else "nothing"
        if turn.label not in (label, "") or not (step or is_new):
            raise Mismatch(f"{turn}: {label} is next")
        if not session.acted:  # BEGIN does nothing yet
            session.began, session.acted = len(self.turns), label != "BEGIN"
        self.turns.append(turn._replace(label=label))
        if session.done:
            session.ended = len(self.turns)
        if step is not None:
            assert session.line is not None
            await self._let_through(session, session.line, turn.fault)

    async def _let_through(self, session: Session, line: Line, fault: str) -> None:
        line.fate = {"unanswered": "cut", "held": "held"}.get(fault, "")
        if fault == "lost":
            line.cut()
        elif fault == "killed":
            await self._gate.terminate(line)
        elif fault == "orphaned":
            await self._gate.kill_client(line)
        else:
            line.let_through()
        await self._settle(session)

    async def _pass_by(self, turn: Turn) -> None:
        if turn.label.endswith("ms"):
            await asyncio.sleep(int(turn.label.removesuffix("ms")) / 1000)
        else:
            assert self._others is not None
            owners = [(each, each.line) for each in self.sessions if each.line]
            for _, line in owners:
                line.told.clear()  # of the server's end, if it ends
            await self._others(turn.label)
            # Of connections that are lost at once, one after the other is missed, because no more
            # than one request may look for a new one.
            for session, line in owners:
                line.told.set()
                if line.dead:
                    line.open = False
                    await self._settle(session)
        self.turns.append(turn)

    async def finish(self) -> None:
        """Go on with any turn until all requests are answered, and open the gate."""
        while turns := await self.possible():
            await self.take(turns[0])
        self._gate.open()

    async def abandon(self) -> None:
        """Open the gate, and wait for the answers of what was sent."""
        self._gate.open()
        await asyncio.gather(*(each.task for each in self.sessions if each.task))

    def _held(self) -> list[Turn]:
        found = []
        for session in self.sessions:
            if session.task is None:
                found.append(Turn(session.number, ""))
            elif session.line and (step := session.line.waits):
                found.append(Turn(session.number, step.label))
        return found

    async def _settle(self, mover: Session) -> None:
        """Wait until no request moves. `mover` is the one that may be between two connections."""
        heard = monotonic()  # when something happened last
        async with asyncio.timeout(LIMIT):
            while True:
                self._gate.changed.clear()
                self._own(mover)
                busy = [each for each in self.sessions if self._moves(each)]
                if not busy:
                    break
                try:
                    await asyncio.wait_for(self._gate.changed.wait(), ASK)
                    heard = monotonic()
                except TimeoutError:
                    silent = monotonic() - heard > self._gate.patience
                    stuck = silent or await self._all_blocked(busy)
                    if stuck and not self._gate.changed.is_set():
                        break
        await self._gate.all_gone()
        used = [session.line for session in self.sessions]
        none_is_free = all(line in used for line in self._gate.lines)
        for session in self.sessions:
            session.queued = none_is_free and self._moves(session) and not session.line
            if session.done and session.ended < 0:
                session.ended = len(self.turns)

    def _own(self, mover: Session) -> None:
        """Give connections that are used to who uses them."""
        for session in self.sessions:
            line = session.line
            if line and (not line.open or line.ended > session.transaction):
                session.line = None
        owned = [session.line for session in self.sessions]
        for line in self._gate.lines:
            if line.waits and line not in owned:
                moving = [each for each in self.sessions if self._moves(each) and not each.line]
                # A connection that is given back goes to those that wait for one. If nobody moves,
                # a broken service is at work for a request that it has answered.
                waiting = [each for each in moving if each.queued] or moving
                owner = mover if mover in waiting or not waiting else waiting[0]
                owner.line, owner.transaction, owner.queued = line, line.ended, False

    def _moves(self, session: Session) -> bool:
        """Tell whether a request is neither unsent, nor answered, nor stopped at the gate."""
        line = session.line
        if line is not None and (line.owed or line.waits or line.dead):
            return bool(line.owed)
        # A broken service may go on with a transaction after the answer.
        inside = line is not None and line.open and not line.idle
        return session.task is not None and (inside or not session.done)

    async def _all_blocked(self, busy: list[Session]) -> bool:
        for session in busy:
            line = session.line
            if not (line and line.owed and await self._gate.blocked(line)):
                return False
        return True


async def replay(run: Run, schedule: Sequence[Turn]) -> None:
    """Take the turns of a schedule, and then any, until all requests are answered.

    Raises Mismatch if the schedule does not fit.
    """
    try:
        for turn in schedule:
            await run.possible()
            await run.take(turn)
    except Mismatch:
        await run.abandon()
        raise
    await run.finish()
