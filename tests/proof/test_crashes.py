"""What breaks at a step of a schedule makes no second row, and neither do larger meetings."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.prove.scene import KINDS
from db.prove.schedule import FAULTS, parse
from tests.faults.server import running
from tests.proof.interleavings import Choice, Meeting, Stage
from tests.proof.interleavings import stage as start
from tests.support.others import remembered
from tests.support.service import sql, temporary_data_dir

LONG = pytest.mark.long

CREATE = Meeting(("create",), "none")
CREATES = Meeting(("create", "create"), "none")
THREE = Meeting(("create", "create", "create"), "none")

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


# One request and a half, in the midst of which the server is killed: 201 is told before, while the
# answer to COMMIT is on its way, and not at all.
CRASHES = (
    "1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT 0:crash",
    "1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT!held 0:crash",
    "1:BEGIN 1:snapshot 1:select 1:insert 2:BEGIN 2:snapshot 2:select 0:crash",
    "1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT!held 2:BEGIN 2:snapshot 0:crash",
)

STARTED = "SELECT pg_postmaster_start_time()"

# The first request has the only connection, the second one waits for it, and the third one comes
# at each step.
FULL = (
    "1:BEGIN 2:nothing 3:nothing 1:snapshot",
    "1:BEGIN 1:snapshot 1:select 2:nothing 1:insert 3:nothing 1:COMMIT",
    "1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT!held 2:nothing 3:nothing 1:answer",
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
        later = [each.label for each in verdict.turns[number + 1 :] if each.request == turn.request]
        assert later[0] == ("answer" if fault == "held" else "BEGIN"), verdict.schedule


@pytest.mark.parametrize(("fault", "status"), [("lost", 201), ("unanswered", 200)])
def test_a_lost_commit_is_made_anew_and_an_unanswered_one_is_found(
    theatre: Theatre, fault: str, status: int
) -> None:
    turns = parse(f"1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT!{fault}")
    verdict = theatre.run(theatre.stage.struck(CREATE, turns, Random(0)))
    assert verdict.told[0].startswith(f"{status} "), verdict.schedule


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


@LONG
def test_the_server_is_killed_and_started() -> None:
    with temporary_data_dir() as data_dir, running(data_dir) as server:

        def crash() -> None:
            server.stop(signal.SIGKILL)
            server.start()

        async def crashed() -> None:
            async with start(server.new_database(), crash=crash) as stage:
                for schedule in CRASHES:
                    before = sql(server.url, STARTED)
                    verdict = await stage.struck(CREATES, parse(schedule), Random(0))
                    assert verdict.wrong == "", f"{verdict.schedule}\n{verdict.wrong}"
                    assert sql(server.url, STARTED) != before

        asyncio.run(crashed())


@LONG
def test_a_worker_is_killed(database: str) -> None:
    async def orphaned() -> None:
        async with start(database, WORKERS="2") as stage:
            turns = parse(BOTH_LOOK)[:8]
            for number in (2, 6, 7):  # where it looks, inserts and commits
                struck = [*turns[:number], turns[number]._replace(fault="orphaned")]
                verdict = await stage.struck(CREATES, struck, Random(0))
                assert verdict.wrong == "", f"{verdict.schedule}\n{verdict.wrong}"
                assert "502" in verdict.told
                await stage.scene.ready()

    asyncio.run(orphaned())


def test_a_request_that_finds_the_queue_full_is_turned_away(database: str) -> None:
    async def turned_away() -> None:
        async with start(database, POOL_SIZE="1", POOL_QUEUE="1") as stage:
            stage.scene.gate.patience = 0.2  # the requests wait for each other in the service
            for first in FULL:
                verdict = await stage.struck(THREE, parse(first), Random(0))
                assert verdict.wrong == "", f"{verdict.schedule}\n{verdict.wrong}"
                assert [told[:3] for told in verdict.told] == ["201", "200", "503"]

    asyncio.run(turned_away())


def test_an_insert_after_its_time_makes_no_second_row(database: str) -> None:
    async def late() -> None:
        async with start(database, at_any_age=False) as stage:
            many = FORGOTTEN.format(2 * remembered(database)).replace("1:insert", "0:60ms 1:insert")
            verdict = await stage.struck(CREATES, parse(many), Random(0))
            assert verdict.wrong == "", verdict.schedule
            assert verdict.schedule.endswith("1:insert 1:COMMIT 1:BEGIN 1:snapshot 1:select"
                                             " 1:insert 1:COMMIT")  # fmt: skip

    asyncio.run(late())
