"""`make exhaustive` lets three requests meet in every order of their messages, and prints a table.

With DATABASE_URL it works in a schema of its own, dropped at the end. It ends with status 1 at the
first order whose outcome nothing explains.
"""

import asyncio
import sys
from random import Random
from time import monotonic
from typing import NamedTuple

from db.signals import unwind_on_signals
from tests.proof.interleavings import Meeting, Stage, stage
from tests.proof.stress import own_tables, server

MEETINGS = [
    Meeting(("create", "create", "delete"), "one"),
    Meeting(("create", "delete parent", "create"), "one"),
    Meeting(("create", "create", "delete"), "none"),
    Meeting(("create", "create", "create"), "none"),
]

# So many orders are drawn, of all that there are, to see whether one has another outcome.
DRAWN = 200


class Found(NamedTuple):
    """What came of a meeting."""

    orders: int  # that PostgreSQL can tell apart
    runs: int  # how many it took to find them
    outcomes: int  # how many differ, whichever of equal requests had which answer
    seconds: float


class Broken(AssertionError):
    """An order has an outcome that nothing explains, or that no other order has."""


async def meet(there: Stage, meeting: Meeting, drawn: int = DRAWN) -> Found:
    """Run every order, and then so many that are drawn. Raises Broken."""
    begun, runs = monotonic(), there.scene.started
    orders = 0
    outcomes = set()
    async for verdict in there.every(meeting):
        orders += 1
        outcomes.add(verdict.outcome(meeting))
        if verdict.wrong:
            raise Broken(f"{verdict.schedule}\n{verdict.wrong}")
    found = Found(orders, there.scene.started - runs, len(outcomes), monotonic() - begun)
    random = Random(orders)
    for _ in range(drawn):
        verdict = await there.drawn(meeting, random)
        if verdict.outcome(meeting) not in outcomes:
            raise Broken(f"nothing else comes to the same as\n{verdict.schedule}\n{verdict.told}")
    return found


async def _main(database: str) -> None:
    print("| requests | orders | runs | outcomes | seconds |\n|---|---|---|---|---|")
    for meeting in MEETINGS:
        async with stage(database) as there:
            found = await meet(there, meeting)
        names = f"{', '.join(meeting.kinds)}, {meeting.rows} before"
        print(
            f"| {names} | {found.orders:,} | {found.runs:,} | {found.outcomes} |"
            f" {found.seconds:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    unwind_on_signals()
    with server() as url, own_tables(url) as own:
        try:
            asyncio.run(_main(own))
        except Broken as error:
            sys.exit(str(error))
