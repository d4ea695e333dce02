"""Hypothesis draws a schedule that breaks a service, and shrinks it, because schedules replay."""

import asyncio
import sys
from contextlib import AsyncExitStack

import pytest
from hypothesis import find, settings
from hypothesis import strategies as st

from tests.proof.interleavings import Meeting, Stage, Verdict, stage

# The simplest come first, for to those Hypothesis shrinks: creators, one after the other.
Drawn = tuple[list[str], str, list[int]]
DRAWN = st.tuples(
    st.lists(st.sampled_from(["create", "read", "list", "delete"]), min_size=2, max_size=4),
    st.sampled_from(["none", "one"]),
    st.lists(st.integers(0, 3), max_size=40),
)


def smallest(variant: str, database: str) -> tuple[Meeting, Verdict]:
    """Return the smallest meeting and schedule that break the variant, of those that are tried."""
    command = (sys.executable, "-m", "tests.proof.variants", variant)

    async def run(there: Stage, drawn: Drawn) -> tuple[Meeting, Verdict]:
        kinds, rows, numbers = drawn
        meeting = Meeting(tuple(kinds), rows)
        return meeting, await there.chosen(meeting, [(number, "") for number in numbers])

    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        broken = stage(database, *command, VARIANT=variant, PAUSE="0")
        there = loop.run(stack.enter_async_context(broken))
        try:
            drawn = find(
                DRAWN,
                lambda each: loop.run(run(there, each))[1].wrong != "",
                settings=settings(max_examples=1_000, database=None),
            )
            return loop.run(run(there, drawn))
        finally:
            loop.run(stack.aclose())


@pytest.mark.long
def test_a_schedule_is_shrunk_to_the_smallest(database: str) -> None:
    meeting, verdict = smallest("READ COMMITTED", database)
    assert meeting.kinds.count("create") == 2
    # Two creators have ten steps, and no order of fewer makes a second row. A third request may be
    # left in a step or two.
    assert len(verdict.turns) <= 12
