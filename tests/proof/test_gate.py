"""The gate gives each step its turn, and the same schedule comes out the same each time."""

import asyncio
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
from psycopg import AsyncConnection

from db.prove.gate import Gate
from db.prove.messages import Steps
from db.prove.orders import dependent, independent
from db.prove.schedule import Mismatch, Turn, parse
from db.queries import QUERIES
from db.way_out import change
from tests.proof.interleavings import MERGE, SECOND, Meeting, Stage
from tests.proof.interleavings import stage as start
from tests.support.service import sql, until

pytestmark = pytest.mark.anyio

LONG = pytest.mark.long

CREATES = Meeting(("create", "create"), "none")

# Two creators that both look before either inserts, and one that waits for a deletion to commit.
SCHEDULES = {
    "both look first": (
        CREATES,
        "1:BEGIN 2:BEGIN 1:snapshot 2:snapshot 1:select 2:select 1:insert 2:insert 2:COMMIT"
        " 1:COMMIT 1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT",
    ),
    "the second is through before the first inserts": (
        CREATES,
        "1:BEGIN 1:snapshot 1:select 2:BEGIN 2:snapshot 2:select 2:insert 2:COMMIT 1:insert"
        " 1:ROLLBACK 1:BEGIN 1:snapshot 1:select 1:insert 1:COMMIT",
    ),
    "a deletion waits for another": (
        Meeting(("delete", "delete parent"), "one"),
        "1:BEGIN 1:snapshot 1:delete 2:BEGIN 2:snapshot 2:delete 1:COMMIT"
        " 2:ROLLBACK 2:BEGIN 2:snapshot 2:delete 2:COMMIT",
    ),
    "a merge between a look and an insert": (
        Meeting(("create", "merge"), "two"),
        "1:BEGIN 1:snapshot 2:BEGIN 2:LOCK 2:snapshot 2:foreign_keys 2:surplus 1:select 2:keep"
        " 2:remove 2:COMMIT 1:insert 1:COMMIT",
    ),
    "a row that a merge has retired": (
        Meeting((SECOND, MERGE), "two"),
        "2:BEGIN 2:LOCK 2:snapshot 2:foreign_keys 2:surplus 2:keep 2:remove 2:COMMIT 1:get 1:kept",
    ),
}


SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.fixture(scope="module")
async def stage(new_database: Callable[[], str]) -> AsyncIterator[Stage]:
    async with start(new_database()) as there:
        yield there


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + (len(body) + 4).to_bytes(4, "big") + body


def test_a_unit_in_one_segment_is_split_into_steps() -> None:
    sent = [
        *(("P", b"\0BEGIN\0\0\0"), ("B", b"\0\0\0\0\0\0\0\0"), ("D", b"P\0"), ("E", b"\0\0\0\0\0")),
        *(
            ("P", b"\0SELECT 1\0\0\0"),
            ("B", b"\0\0\0\0\0\0\0\0"),
            ("D", b"P\0"),
            ("E", b"\0\0\0\0\0"),
        ),
        *(
            ("P", b"\0COMMIT\0\0\0"),
            ("B", b"\0\0\0\0\0\0\0\0"),
            ("D", b"P\0"),
            ("E", b"\0\0\0\0\0"),
        ),
        ("S", b""),
    ]
    data = [message(*each) for each in sent]
    steps = Steps({b"SELECT 1": "select"})
    found = [step for each in data for step in steps.take(each)]
    assert [(step.label, step.kinds) for step in found] == [
        ("BEGIN", "PBDE"),
        ("snapshot", "P"),
        ("select", "BDE"),
        ("COMMIT", "PBDE"),
        ("", "S"),
    ]
    assert b"".join(step.data for step in found) == b"".join(data)
    assert [step.free for step in found] == [False] * 4 + [True]


def test_a_lock_that_keeps_other_writers_out_has_a_label_of_its_own(database: str) -> None:
    with change.connect(database, "test") as connection:
        (locks,) = change.ask(connection, "way_out/lock", ["employees"])
    sent = [locks["shared"].encode(), locks["alone"].encode(), QUERIES["employees/lock"]]
    steps = Steps({})
    labels = [step.label for each in sent for step in steps.take(message("Q", each + b"\0"))]
    assert labels == ["LOCK", "LOCK_OUT", "LOCK_OUT"]


# Whether two neighbours of different requests may change places, by what PostgreSQL can tell.
INDEPENDENT = {
    "BEGIN COMMIT": True,
    "BEGIN insert": True,
    "ROLLBACK snapshot": True,
    "snapshot snapshot": True,
    "snapshot select": True,
    "snapshot insert": True,
    "snapshot get": False,  # a request that ends with its get may end before the other begins
    "snapshot COMMIT": False,  # the snapshot has what was committed before it
    "select select": True,
    "select get": True,
    "select insert": False,  # the later of the two meets the other, and may fail
    "select COMMIT": False,  # what fails depends on who has committed
    "LOCK LOCK": True,
    "LOCK LOCK_OUT": False,
    "get kept": True,
    "get insert": True,  # its own snapshot does not have what is not committed
    "get COMMIT": False,
    "insert insert": False,
    "insert COMMIT": False,
    "COMMIT COMMIT": False,
    # What nobody knows counts as a write.
    "unknown select": False,
    "unknown insert": False,
    "unknown get": True,
}


@pytest.mark.parametrize("pair", INDEPENDENT)
def test_which_steps_may_change_places(pair: str) -> None:
    one, other = pair.split()
    assert independent(Turn(1, one), Turn(2, other)) == INDEPENDENT[pair]
    assert independent(Turn(2, other), Turn(1, one)) == INDEPENDENT[pair]
    assert not independent(Turn(1, one), Turn(1, other))


@pytest.mark.parametrize("text", ["1:BEGIN 2:select", "1:COMMIT!lost 0:1500 0:60ms 1:answer"])
def test_a_schedule_is_read_as_it_is_printed(text: str) -> None:
    assert " ".join(map(str, parse(text))) == text


async def test_it_refuses_encryption_and_passes_a_cancellation_on(database: str) -> None:
    async with Gate.before(database, {}) as gate:
        options = {"sslmode": "prefer", "gssencmode": "prefer"}
        url = psycopg.conninfo.make_conninfo(gate.url, **options)
        async with await AsyncConnection.connect(url) as connection:
            assert not connection.pgconn.ssl_in_use
            sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
            await asyncio.to_thread(until, lambda: sql(database, SLEEPING) == [(1,)])
            await connection.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                await sleeping


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=LONG)])
@pytest.mark.parametrize("name", SCHEDULES)
async def test_the_same_schedule_comes_out_the_same(stage: Stage, name: str, times: int) -> None:
    meeting, schedule = SCHEDULES[name]
    verdicts = {await stage.once(meeting, schedule) for _ in range(times)}
    (verdict,) = verdicts
    assert verdict.schedule == schedule
    assert verdict.wrong == ""


async def test_a_schedule_that_does_not_fit_is_refused(stage: Stage) -> None:
    with pytest.raises(Mismatch, match="2:select: BEGIN is next"):
        await stage.once(CREATES, "1:BEGIN 2:select")
    assert (await stage.once(CREATES, "1:BEGIN 2:BEGIN")).wrong == ""


@pytest.mark.parametrize("unknown", [1, 2])
async def test_a_block_is_seen_on_servers_that_tell_less(stage: Stage, unknown: int) -> None:
    meeting, schedule = SCHEDULES["a deletion waits for another"]
    expected = await stage.once(meeting, schedule)
    questions = stage.scene.gate.questions
    kept = questions[:unknown]
    questions[:unknown] = [b"SELECT no_such_function($1::integer, $2::integer[])"]
    try:
        assert await stage.once(meeting, schedule) == expected
        assert len(questions) == 2 - unknown
    finally:
        questions[:0] = kept


@pytest.mark.parametrize(
    "meeting",
    [
        Meeting(("delete", "read"), "one"),
        *(
            pytest.param(Meeting(kinds, rows), marks=LONG)
            for kinds, rows in [
                (("create", "create"), "none"),
                (("create", "delete"), "one"),
                (("create", "delete parent"), "one"),
                (("array", "list"), "none"),
                (("read", "create"), "none"),
                (("delete", "list"), "one"),
            ]
        ),
    ],
    ids=str,
)
async def test_orders_that_are_left_out_show_nothing_new(stage: Stage, meeting: Meeting) -> None:
    few = [each async for each in stage.every(meeting)]
    all_ = [each async for each in stage.every(meeting, dependent)]
    assert {each.outcome(meeting) for each in few} == {each.outcome(meeting) for each in all_}
    assert len(few) < len(all_)
    assert len({each.schedule for each in all_}) == len(all_)
