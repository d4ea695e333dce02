"""A standby takes over, the former primary comes back, and nothing is lost."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from db.embedded import embedded_server
from db.schema import apply_schema
from tests.faults.server import Server
from tests.support.service import serving, sql, temporary_data_dir, until
from tests.support.standby import hosts, standby_of

pytestmark = pytest.mark.alone


@pytest.fixture
def primary() -> Iterator[Server]:
    with temporary_data_dir() as data_dir, embedded_server(data_dir) as url:
        apply_schema(url)
        yield Server(data_dir, url)


@pytest.fixture
def standby(primary: Server) -> Iterator[str]:
    with standby_of(primary.url) as url:
        yield url


def test_the_former_primary_is_not_written_to(primary: Server, standby: str) -> None:
    with serving(DATABASE_URL=hosts(primary.url, standby)) as service:
        service.connections_break = True
        assert service.post("/departments", name="before").status_code == 201
        until(lambda: sql(standby, "SELECT FROM departments") != [])
        primary.stop(signal.SIGKILL)
        sql(standby, "SELECT pg_promote()")
        until(lambda: service.post("/departments", name="after").status_code == 201)
        primary.start()
        for number in range(5):
            sql(standby, f"SELECT pg_terminate_backend(pid) FROM ({SESSIONS})")
            assert service.post("/departments", name=f"number {number}").status_code == 201
        assert sql(primary.url, "SELECT name FROM departments") == [("before",)]
        assert len(sql(standby, "SELECT FROM departments")) == 7
        assert "another server was promoted" in service.log.read_text()


@pytest.mark.parametrize("pipeline", "10")
def test_a_commit_that_no_standby_has_is_not_acknowledged(primary: Server, pipeline: str) -> None:
    def cancelled(request: Callable[[], httpx.Response]) -> int:
        """Return the status of a request whose wait for the standby is cancelled."""
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(request)
            until(lambda: sql(primary.url, f"SELECT pg_cancel_backend(pid) {WAITING}") != [])
            return answer.result().status_code

    with serving(DATABASE_URL=primary.url, PIPELINE=pipeline) as service:
        service.connections_break = True
        before = service.post("/departments", name="before")
        assert before.status_code == 201
        sql(primary.url, "ALTER SYSTEM SET synchronous_standby_names = nobody")
        sql(primary.url, "SELECT pg_reload_conf()")
        until(lambda: sql(primary.url, "SHOW synchronous_standby_names") == [("nobody",)])
        assert cancelled(lambda: service.post("/departments", name="cancelled")) == 503
        assert cancelled(lambda: service.http.delete(before.headers["Location"])) == 503
        ((id_,),) = sql(primary.url, "SELECT id FROM departments")
        assert service.http.get(f"/departments/{id_}").status_code == 200
        assert service.post("/departments", name="cancelled").status_code == 200


WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def test_connections_to_the_former_primary_end_when_one_leads_to_the_new(
    primary: Server, standby: str
) -> None:
    end_one = f"SELECT pg_terminate_backend(pid) FROM ({SESSIONS} LIMIT 1)"
    with serving(DATABASE_URL=hosts(primary.url, standby)) as service:
        service.connections_break = True
        until(lambda: len(sql(primary.url, SESSIONS)) == 8)
        sql(standby, "SELECT pg_promote()")

        def one_is_at_the_new() -> bool:
            sql(primary.url, end_one)
            service.http.get("/ready")
            return sql(standby, SESSIONS) != []

        until(one_is_at_the_new)
        until(lambda: sql(primary.url, SESSIONS) == [])
        assert service.post("/departments", name="after").status_code == 201
        assert sql(primary.url, "SELECT FROM departments") == []


SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'onerow'"
