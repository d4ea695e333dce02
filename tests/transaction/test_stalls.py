"""A creator that stalls makes no second row, even when PostgreSQL has forgotten the conflict."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import RawCursor
from psycopg.conninfo import make_conninfo

from db.queries import QUERIES
from tests.proof.schedules import ageless
from tests.support.others import make_others, remembered
from tests.support.others import others as pass_by
from tests.support.pgbouncer import PGBOUNCER, pooling
from tests.support.service import LIMIT, sql, until
from tests.support.stalls import Stage, stage

# How many transactions pass meanwhile, as a share of those that PostgreSQL remembers.
SHARES = (0, 0.5, 1.5)

# Either creator may begin first.
ORDERS = {"the slow one first": "sf", "the fast one first": "fs"}


def schedule(database: str, order: str, others: int, insert: bytes) -> str:
    """Let the slow creator stall until the fast one is through and others have passed.

    Return what became of the slow one: "created", "none" or an SQLSTATE.
    """
    select = QUERIES["departments/select"]
    url = make_conninfo(database, options="-c enable_seqscan=off")
    with (
        psycopg.connect(url, cursor_factory=RawCursor) as slow,
        psycopg.connect(url, cursor_factory=RawCursor) as fast,
    ):
        connections = {"s": slow, "f": fast}
        for each in order:
            connections[each].isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            assert connections[each].execute(select, ["Ada"]).fetchone() is None
        assert fast.execute(insert, ["Ada"]).fetchone() is not None
        fast.commit()
        pass_by(database, others)
        try:
            created = slow.execute(insert, ["Ada"]).fetchone()
            slow.commit()
        except psycopg.Error as error:
            return str(error.sqlstate)
    return "created" if created else "none"


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_postgresql_forgets_the_conflict_and_the_insert_knows(order: str, database: str) -> None:
    make_others(database)
    number = remembered(database)
    assert schedule(database, order, 0, ageless("departments/insert")) == "40001"
    sql(database, "TRUNCATE departments CASCADE")
    if schedule(database, order, 2 * number, ageless("departments/insert")) == "40001":
        pytest.skip("this server does not forget")
    assert sql(database, "SELECT count(*) FROM departments") == [(2,)]
    sql(database, "TRUNCATE departments CASCADE")
    # One creator alone tries the age: on a busy machine the fast one might be too late, too.
    with psycopg.connect(database, cursor_factory=RawCursor) as late:
        late.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        late.execute("SELECT pg_sleep(0.06)")  # makes the transaction as old as that
        assert late.execute(QUERIES["departments/insert"], ["Ada"]).fetchone() is None


def test_an_insert_that_waited_for_a_lock_is_late(database: str) -> None:
    # The insert reads the server's clock, and does so when it has the lock.
    select, insert = QUERIES["departments/select"], QUERIES["departments/insert"]
    url = make_conninfo(database, options="-c enable_seqscan=off")
    with (
        psycopg.connect(url, cursor_factory=RawCursor) as slow,
        psycopg.connect(url, autocommit=True, cursor_factory=RawCursor) as others,
        ThreadPoolExecutor(1) as thread,
    ):
        slow.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        slow.prepare_threshold = 0
        slow.execute(insert, ["prepared"])
        slow.commit()
        assert slow.execute(select, ["Ada"]).fetchone() is None
        others.execute("BEGIN")
        others.execute("INSERT INTO departments (name) VALUES ('Ada')")
        others.execute("LOCK TABLE departments IN SHARE ROW EXCLUSIVE MODE")
        waiting = thread.submit(lambda: slow.execute(insert, ["Ada"]).fetchone())
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1"
        until(lambda: others.execute(query, [slow.info.backend_pid]).fetchone() == (1,))
        make_others(database)
        pass_by(database, 2 * remembered(database))
        others.execute("COMMIT")
        assert waiting.result(LIMIT) is None


@pytest.fixture(scope="module", params=["pipeline", "plain", "pooler"])
def stalling(request: pytest.FixtureRequest, new_database: object) -> Iterator[Stage]:
    database = new_database()  # type: ignore[operator]
    if request.param == "pooler":
        if PGBOUNCER is None:
            pytest.skip("pgbouncer is not installed")
        with (
            pooling(database) as pgbouncer,
            stage(database, url=pgbouncer.url, POOLER="1") as there,
        ):
            yield there
    else:
        pipeline = str(int(request.param == "pipeline"))
        with stage(database, PIPELINE=pipeline) as there:
            yield there


@pytest.mark.parametrize("share", SHARES)
def test_a_creator_that_stalls_makes_no_second_row(stalling: Stage, share: float) -> None:
    others = round(share * remembered(stalling.database))
    answers, rows = stalling.race(f"stalled while {others} pass", others)
    assert [answer.status_code for answer in answers] == [200, 201]
    assert answers[0].json() == answers[1].json()
    assert rows == 1


def test_an_array_that_stalls_makes_no_second_row(stalling: Stage) -> None:
    others = 2 * remembered(stalling.database)
    answers, rows = stalling.race("an array, stalled", others, array=True)
    (item,) = answers[0].json()
    assert (item["status"], item["row"]) == (200, answers[1].json())
    assert rows == 1


@pytest.mark.long
@pytest.mark.parametrize("variant", ["insert at any age", "pipeline, insert at any age"])
def test_a_service_that_inserts_at_any_age_is_caught(variant: str, database: str) -> None:
    others = 2 * remembered(database)
    command = [sys.executable, "-m", "tests.proof.variants", variant]
    with stage(database, *command, VARIANT=variant) as there:
        answers, rows = there.race("stalled", 0)
        assert rows == 1, "PostgreSQL remembers what was just now"
        answers, rows = there.race("stalled while others pass", others)
        if rows == 1:
            pytest.skip("this server does not forget")
        assert [answer.status_code for answer in answers] == [201, 201]
