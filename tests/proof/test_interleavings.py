"""Every order of the steps of two requests, over HTTP, leaves what the two leave one by one."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.proof.interleavings import FOREIGN, MERGE, PAIRS, Pair, Stage
from tests.proof.interleavings import stage as start

pytestmark = pytest.mark.anyio

WAYS = {"as it is": {}, "plain": {"PIPELINE": "0"}, "pooler": {"POOLER": "1"}}

# `make test` runs these, of the other ways the first alone, and `make proof` runs all.
FEW = [
    Pair(("create", "create"), "none"),
    Pair(("create", "delete parent"), "one"),
    Pair(("create", "read"), "none"),
    Pair(("delete", MERGE), "two"),
    Pair(("create", FOREIGN), "none"),
]

CASES = [
    pytest.param(
        (way, pair.guarded),
        pair,
        id=f"{way}, {pair}",
        marks=[] if pair in FEW[: 1 if settings else None] else pytest.mark.long,
    )
    for way, settings in WAYS.items()
    for pair in PAIRS
]


@pytest.fixture(scope="module")
async def stage(
    request: pytest.FixtureRequest, new_database: Callable[[], str]
) -> AsyncIterator[Stage]:
    way, guarded = request.param
    async with start(new_database(), guarded=guarded, **WAYS[way]) as there:
        yield there


@pytest.mark.parametrize(("stage", "pair"), CASES, indirect=["stage"])
async def test_two_requests_in_every_order(stage: Stage, pair: Pair) -> None:
    async for verdict in stage.every(pair):
        assert verdict.wrong == "", f"{verdict.wrong}\nin {pair}\n{verdict.schedule}"
