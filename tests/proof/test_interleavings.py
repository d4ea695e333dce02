"""Every order of the steps of requests that meet, over HTTP, leaves what they leave one by one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.proof.interleavings import FOREIGN, LATER, MERGE, PAIRS, Meeting, Stage
from tests.proof.interleavings import stage as start

pytestmark = pytest.mark.anyio

WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "plain": {"PIPELINE": "0"},
    "pooler": {"POOLER": "1"},
}

# `make test` runs these, of the other ways the first alone, and `make proof` runs all.
FEW = [
    Meeting(("create", "create"), "none"),
    Meeting(("create", "delete parent"), "one"),
    Meeting(("create", "read"), "none"),
    Meeting(("delete", MERGE), "two"),
    Meeting(("create", FOREIGN), "none"),
]

CASES = [
    pytest.param(
        way,
        meeting,
        id=f"{way}, {meeting}",
        marks=[] if meeting in FEW[: 1 if settings else None] else pytest.mark.long,
    )
    for way, settings in WAYS.items()
    for meeting in [*PAIRS, *LATER]
]

Stages = Callable[[str, bool], Awaitable[Stage]]


@pytest.fixture(scope="module")
async def stages(new_database: Callable[[], str]) -> AsyncIterator[Stages]:
    """Return a function that starts the stage of a way, with the guard or without, once."""
    started: dict[tuple[str, bool], Stage] = {}
    async with AsyncExitStack() as stack:

        async def get(way: str, guarded: bool) -> Stage:
            if (way, guarded) not in started:
                new = start(new_database(), guarded=guarded, **WAYS[way])
                started[way, guarded] = await stack.enter_async_context(new)
            return started[way, guarded]

        yield get


@pytest.mark.parametrize(("way", "meeting"), CASES)
async def test_requests_that_meet_in_every_order(
    stages: Stages, way: str, meeting: Meeting
) -> None:
    stage = await stages(way, meeting.guarded)
    async for verdict in stage.every(meeting):
        assert verdict.wrong == "", f"{verdict.wrong}\nin {meeting}\n{verdict.schedule}"
