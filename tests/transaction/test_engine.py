"""Other engines are known by what they say, and their SQL keeps the promise on PostgreSQL, too."""

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from time import monotonic

import pytest

from db.engine import ENGINES, discover, named
from db.schema import apply_schema
from db.session import conninfo
from db.settings import Settings
from tests.faults.deploys import Traffic
from tests.support import legacy
from tests.support.service import LIMIT, ROOT, collide, environment, serving, sql

# The parameters that the engines send, by their documentation.
SAYINGS = {
    "postgresql": {b"server_version": b"18.6"},
    "yugabytedb": {b"server_version": b"15.2-YB-2.25.0.0-b0"},
    "cockroachdb": {b"server_version": b"13.0.0", b"crdb_version": b"CockroachDB CCL v25.1.0"},
}


@pytest.mark.parametrize("name", SAYINGS)
def test_an_engine_is_what_it_says(name: str) -> None:
    assert named(SAYINGS[name].get) == name


def test_postgresql_says_so(server: str) -> None:
    assert discover(server) == "postgresql"


@pytest.fixture
def distributed(new_database: Callable[[], str]) -> str:
    """The URL of a database with the tables as the other engines have them."""
    database = new_database()
    sql(database, "DROP TABLE departments, employees, merged")
    apply_schema(database, "yugabytedb")
    return database


@pytest.mark.long
@pytest.mark.parametrize("pipeline", ["1", "0"])
def test_each_key_gets_one_row_by_their_sql(pipeline: str, distributed: str) -> None:
    settings = {"DATABASE_URL": distributed, "ENGINE": "cockroachdb", "PIPELINE": pipeline}
    with serving(**settings, WORKERS="2") as service:
        traffic = Traffic(service.port)
        asyncio.run(traffic.clients(16, lambda: len(traffic.calls) >= 1000))
        service.await_ready()
        for path in ("/departments?name=department 0", "/employees?department_id=1&name=Ada"):
            assert service.http.get(path).status_code == 200
        verdict = traffic.verdict("by their SQL", distributed, 0)
        assert (verdict.lost, verdict.doubled) == (0, 0)
        service.database = distributed
        assert sorted(each.status_code for each in collide(service, "twice")) == [200, 201]
        assert service.complaints() == []
    assert set(traffic.statuses) == {200, 201}


def test_the_tables_are_those_of_postgresql() -> None:
    def statements(engine: str) -> list[str]:
        text = re.sub("^--.*\n", "", ENGINES[engine].schema.read_text(), flags=re.MULTILINE)
        return [each for each in text.split(";") if "_lookup" not in each]

    assert statements("cockroachdb") == statements("postgresql")


def test_yugabytedb_is_told_not_to_retry_by_itself() -> None:
    settings = Settings(database_url="host=a", engine="yugabytedb")
    assert "-c yb_max_query_layer_retries=0" in conninfo(settings)


@pytest.mark.parametrize("command", [["doctor"], ["guard", "on"], ["merge"], ["enforce"]])
def test_what_only_postgresql_has_is_refused(command: list[str], distributed: str) -> None:
    status, _, errors = legacy.run(distributed, *command, ENGINE="cockroachdb")
    assert status == 1
    assert "the server is CockroachDB" in errors


@pytest.mark.long
def test_a_server_that_cannot_be_asked_does_not_hold_up_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/"
        begun = monotonic()
        with serving(DATABASE_URL=url) as service:
            assert service.http.get("/live").status_code == 200
        assert monotonic() - begun < LIMIT  # psycopg's own patience is more than twice that


def test_an_unknown_engine_stops_the_start(distributed: str) -> None:
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(DATABASE_URL=distributed, ENGINE="oracle"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "ENGINE" in done.stderr
