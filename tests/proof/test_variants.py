"""Each broken service is caught by a schedule, which breaks it again."""

import sys
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

import pytest

from db.connection import Connection
from db.pipeline import Row
from db.pool import Pool
from db.prove.schedule import Mismatch
from db.transaction import transact
from db.way_out import moves
from tests.proof.interleavings import LATER, MERGE, PAIRS, SECOND, Meeting, Stage, Verdict
from tests.proof.interleavings import stage as start
from tests.proof.search import CONTROLS
from tests.proof.subtle import SUBTLE

pytestmark = pytest.mark.anyio

LONG = pytest.mark.long

# A variant must be caught within so many schedules.
SCHEDULES = 1000

# What meets, in all orders, one after the other, until something goes wrong: pairs, a creation
# whose answer is held back, one whose first three attempts are cut short, and a row that a merge
# retires. The second of these comes early, for each order of "single flight" takes a second.
CREATES, *OTHERS = [each for each in PAIRS if not each.guarded and MERGE not in each.kinds]
LOST, HELD, *_ = LATER
SEARCH = [
    CREATES,
    HELD,
    *OTHERS,
    Meeting(("create", "read"), "elsewhere"),
    LOST,
    Meeting((SECOND, MERGE), "two"),
]

# What meets then, in orders that are drawn: these have too many.
MANY = Meeting(("create", "create", "delete", "create"), "none")

BROKEN = [each for each in CONTROLS if each != "blind insert"] + list(SUBTLE)


# What a merge reads to know which rows go.
PLAN = "employees/surplus"


class Catch(NamedTuple):
    """What went wrong, and how many schedules were run until then."""

    meeting: Meeting
    verdict: Verdict
    after: int


def is_caught(verdict: Verdict) -> bool:
    """Tell whether it is what the variant is for, and no mistake of its own."""
    return verdict.wrong != "" and "-> 500" not in verdict.wrong


async def catch(stage: Stage) -> Catch | None:
    """Return the first schedule that breaks the service, or None if SCHEDULES do not."""
    after = 0
    for meeting in SEARCH:
        with suppress(Mismatch):  # a service that has no retry does not begin so
            async for verdict in stage.every(meeting):
                after += 1
                if is_caught(verdict):
                    return Catch(meeting, verdict, after)
    random = Random(1)
    while after < SCHEDULES:
        after += 1
        verdict = await stage.drawn(MANY, random)
        if is_caught(verdict):
            return Catch(MANY, verdict, after)
    return None


@pytest.mark.parametrize(
    "variant",
    [pytest.param(each, marks=[] if each == "READ COMMITTED" else LONG) for each in BROKEN],
)
async def test_a_broken_service_is_caught_and_caught_again(
    variant: str, database: str, record_property: Callable[[str, object], None]
) -> None:
    command = (sys.executable, "-m", "tests.proof.variants", variant)
    async with start(database, *command, VARIANT=variant, PAUSE="0") as stage:
        # Nothing but a broken service makes a request wait for another, and none merges for long.
        stage.scene.gate.patience = 1.0
        caught = await catch(stage)
        assert caught is not None, f"not caught in {SCHEDULES} schedules"
        meeting, verdict, after = caught
        again = await stage.once(meeting, verdict.schedule)
    assert again == verdict
    record_property(
        f"{variant}: caught by schedule {after}, {meeting}", f"{verdict.schedule}\n{verdict.wrong}"
    )


@LONG
async def test_a_merge_that_plans_before_its_transaction_is_caught(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # If it locked the row that stays, it would say that this one is gone, and lose nothing.
    begin = "3:surplus 2:BEGIN 2:snapshot 2:delete 2:COMMIT 1:BEGIN 1:snapshot 1:select"
    meeting = Meeting(("create", "delete", MERGE), "two", begin)
    plan: list[Row] = []
    rows_of = moves.rows_of

    async def planned(connection: Connection, query: str, *parameters: object) -> list[Row]:
        return list(plan) if query == PLAN else await rows_of(connection, query, *parameters)

    async def unlocked(*_: object) -> None:
        pass

    async def later(pool: Pool, work: Any, **options: Any) -> Any:
        async def look(connection: Connection) -> list[Row]:
            return await rows_of(connection, PLAN, [1])

        plan[:] = await transact(pool, look, **options)
        return await transact(pool, work, **options)

    monkeypatch.setattr("db.way_out.merge.rows_of", planned)
    monkeypatch.setattr("db.way_out.batches.transact", later)
    monkeypatch.setattr(moves, "_lock", unlocked)
    async with start(database) as stage:
        caught = [each async for each in stage.every(meeting) if each.wrong]
        assert caught
        assert await stage.once(meeting, caught[0].schedule) == caught[0]
