"""What breaks at a step of a schedule makes no second row, and neither do larger meetings."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.prove.scene import KINDS
from db.prove.schedule import FAULTS, parse
from tests.proof.interleavings import Choice, Meeting, Stage
from tests.proof.interleavings import stage as start
from tests.support.others import remembered

LONG = pytest.mark.long

CREATES = Meeting(("create", "create"), "none")

# Both look, the second one creates, and the first one begins again.
BOTH_LOOK = (
    "1:BEGIN 1:snapshot 1:select 2:BEGIN 2:snapshot 2:select 2:insert 2:COMMIT 1:insert 1:ROLLBACK"
    " 1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT"
)

# The same, while so many others pass that PostgreSQL forgets what the first one has read.
FORGOTTEN = (
    "1:BEGIN 1:snapshot 1:select 2:BEGIN 2:snapshot 2:select 2:insert 2:COMMIT 0:{} 1:insert"
    " 1:COMMIT"
)


class Theatre:
    """A stage for tests that are not asynchronous."""

    def __init__(self, stage: Stage, loop: asyncio.Runner) -> None:
        self.stage, self.run = stage, loop.run


@pytest.fixture(
    scope="module",
    params=[{}, *(pytest.param(way, marks=LONG) for way in ({"PIPELINE": "0"}, {"POOLER": "1"}))],
    ids=str,
)
def theatre(request: pytest.FixtureRequest, new_database: Callable[[], str]) -> Iterator[Theatre]:
    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        stage = loop.run(stack.enter_async_context(start(new_database(), **request.param)))
        try:
            yield Theatre(stage, loop)
        finally:
            loop.run(stack.aclose())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_each_step(theatre: Theatre, fault: str) -> None:
    turns = theatre.run(theatre.stage.struck(CREATES, parse(BOTH_LOOK)[:8], Random(0))).turns
    for number, turn in enumerate(turns):
        struck = [*turns[:number], turn._replace(fault=fault)]
        verdict = theatre.run(theatre.stage.struck(CREATES, struck, Random(number)))
        assert verdict.wrong == "", f"{verdict.schedule}\n{verdict.wrong}"


# A fault in one of ten turns.
CHOICES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([*[""] * 36, *FAULTS])), max_size=40
)


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=3, max_size=4),
    rows=st.sampled_from(["none", "one"]),
    choices=CHOICES,
)
def test_larger_meetings(
    theatre: Theatre, kinds: list[str], rows: str, choices: list[Choice]
) -> None:
    verdict = theatre.run(theatre.stage.chosen(Meeting(tuple(kinds), rows), choices))
    assert verdict.wrong == "", f"{verdict.schedule}\n{verdict.wrong}"


def test_the_conflict_that_postgresql_forgets(database: str, theatre: Theatre) -> None:
    many = parse(FORGOTTEN.format(2 * remembered(database)))
    none = parse(FORGOTTEN.format(0))
    assert theatre.run(theatre.stage.struck(CREATES, none[:-1], Random(0))).wrong == ""
    verdict = theatre.run(theatre.stage.struck(CREATES, many, Random(0)))
    if verdict.wrong == "":
        pytest.skip("this server does not forget")
    assert verdict.wrong.startswith("employee 'Ada' in 1 gained a second row")


def test_an_insert_after_its_time_makes_no_second_row(database: str) -> None:
    async def late() -> None:
        async with start(database, at_any_age=False) as stage:
            many = FORGOTTEN.format(2 * remembered(database)).replace("1:insert", "0:60ms 1:insert")
            verdict = await stage.struck(CREATES, parse(many), Random(0))
            assert verdict.wrong == "", verdict.schedule
            assert verdict.schedule.endswith("1:insert 1:COMMIT 1:BEGIN 1:snapshot 1:select"
                                             " 1:insert 1:COMMIT")  # fmt: skip

    asyncio.run(late())
