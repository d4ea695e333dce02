"""The service works behind pgbouncer, whose sessions are fewer than the service's connections."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.faults.deploys import Traffic
from tests.support import legacy
from tests.support.pgbouncer import PGBOUNCER, PgBouncer, pooling
from tests.support.service import Service, collide, serving, sql, until

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

# The trigger refuses an insert whose transaction is not set up as the service needs it.
ASSERT_SETTINGS = """
CREATE FUNCTION assert_settings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    ASSERT current_setting('transaction_isolation') = 'serializable';
    ASSERT current_setting('enable_seqscan') = 'off';
    ASSERT current_setting('statement_timeout') = '5s';
    ASSERT current_setting('lock_timeout') = '2500ms';
    ASSERT current_setting('idle_in_transaction_session_timeout') = '5s';
    ASSERT NOT EXISTS (
        SELECT FROM pg_locks
        WHERE mode = 'SIReadLock' AND locktype = 'relation' AND pid = pg_backend_pid()
    );
    RETURN NEW;
END $$;
CREATE TRIGGER assert_settings BEFORE INSERT ON departments
FOR EACH ROW EXECUTE FUNCTION assert_settings()
"""

# Finds the sessions of the test's database that wait for a lock.
WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database()"
WAITING += " AND wait_event_type = 'Lock'"


@pytest.fixture
def pgbouncer(database: str) -> Iterator[PgBouncer]:
    with pooling(database, default_pool_size="3") as pgbouncer:
        yield pgbouncer


@pytest.fixture(params=["1", pytest.param("0", marks=pytest.mark.long)], ids=["pipeline", "plain"])
def service(
    request: pytest.FixtureRequest, pgbouncer: PgBouncer, database: str
) -> Iterator[Service]:
    settings = {"DATABASE_URL": pgbouncer.url, "POOLER": "1", "PIPELINE": request.param}
    with serving(**settings, WORKERS="2") as service:
        service.database = database
        service.await_ready()
        yield service


def test_each_key_gets_one_row_and_each_transaction_its_settings(
    service: Service, database: str
) -> None:
    sql(database, ASSERT_SETTINGS)
    traffic = Traffic(service.port)
    asyncio.run(traffic.clients(32, lambda: len(traffic.calls) >= 2000))
    assert set(traffic.statuses) == {200, 201}
    verdict = traffic.verdict("behind pgbouncer", database, 0)
    assert (verdict.lost, verdict.doubled) == (0, 0)
    assert sorted(each.status_code for each in collide(service, "twice")) == [200, 201]
    # The other kinds of request get sessions that other clients have used before.
    id_ = service.post("/departments", name="of its own").json()["id"]
    assert service.http.get(f"/departments/{id_}").json()["created_at"].endswith("Z")
    assert service.http.get("/departments?limit=1").json()["next"]
    assert service.http.delete(f"/departments/{id_}").status_code == 204
    for question in ("predicate_locks", "employees_plan"):
        assert service.http.get(f"/inspect/{question}").status_code == 200
    assert service.complaints() == []


@pytest.mark.long
def test_sessions_and_poolers_may_end(
    service: Service, pgbouncer: PgBouncer, database: str
) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    end += " AND datname = current_database()"
    service.connections_break = True
    for number in range(5):
        sql(database, end)
        assert service.post("/departments", name=f"number {number}").status_code == 201
    pgbouncer.stop()
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(service.post, "/departments", name="while it was gone")
        pgbouncer.start()
        assert answer.result().status_code == 201
    service.await_ready()


def test_no_statement_goes_on_when_its_client_has_an_answer(
    pgbouncer: PgBouncer, database: str
) -> None:
    settings = {"DATABASE_URL": pgbouncer.url, "POOLER": "1", "RETRY_DEADLINE": "0.5"}
    with serving(**settings) as service, psycopg.connect(database) as blocker:
        service.await_ready()
        blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
        assert service.post("/departments", name="Ada").status_code == 503
        assert service.http.get("/departments/1").status_code == 503
        until(lambda: sql(database, WAITING) == [])


@pytest.mark.long
def test_a_pooler_that_refuses_the_settings(pgbouncer: PgBouncer) -> None:
    with serving(DATABASE_URL=pgbouncer.url) as service:
        until(lambda: "unsupported startup parameter: options" in service.log.read_text())
        assert service.http.get("/ready").status_code == 503


@pytest.mark.long
def test_a_pooler_that_drops_the_settings(database: str) -> None:
    with (
        pooling(database, ignore_startup_parameters="options") as pgbouncer,
        serving(DATABASE_URL=pgbouncer.url) as service,
    ):
        ready = service.http.get("/ready")
        assert ready.status_code == 503
        assert "POOLER=1" in ready.json()["detail"]


def test_the_commands_want_the_server_itself(pgbouncer: PgBouncer) -> None:
    status, _, errors = legacy.run(pgbouncer.url, "doctor", POOLER="1")
    assert status == 1
    assert "the server's own DATABASE_URL" in errors
