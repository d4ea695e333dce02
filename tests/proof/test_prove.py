"""`python -m db prove` finds nothing on a server that keeps the guarantee, and else says what."""

import re
import sys
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from db.prove import command, gate
from db.prove.command import prove
from db.prove.scene import Answer, scene
from db.settings import Settings
from tests.support import legacy
from tests.support.documents import section, turns
from tests.support.pgbouncer import PGBOUNCER, pooling
from tests.support.roles import make_role
from tests.support.service import sql

# Numbers that vary by the server, and where it is.
VARYING = r"\d+(\.\d+)?|, user=.*"

OURS = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'onerow_prove%%'"


def settings(database: str, **more: object) -> Settings:
    return Settings(database_url=database, **more)  # type: ignore[arg-type]


@pytest.mark.long
def test_it_stops_in_time_and_leaves_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SECONDS", 1)
    assert prove(database, settings(database))
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r"\s+|:", line)[:2] for line in lines[1:]] == [
        ["advice", way.split()[0]] for way in command.WAYS
    ]
    assert all("each with one row; the time is up" in line for line in lines[1:])
    assert sql(database, OURS) == [(0,)]
    assert sql(database, "SELECT count(*) FROM departments") == [(0,)]


def test_a_second_row_is_told_with_its_schedule(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # No server here breaks the guarantee, so that a service does that uses none.
    name = "READ COMMITTED"
    broken = (sys.executable, "-m", "tests.proof.variants", name)
    monkeypatch.setattr(command, "WAYS", {"PIPELINE=0": {"PIPELINE": "0"}})
    monkeypatch.setattr(
        command, "scene", lambda url, **way: scene(url, *broken, **way, VARIANT=name, PAUSE="0")
    )
    assert not prove(database, settings(database))
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "FAIL   PIPELINE=0: employees has 2 rows for 'Ada' after create and create, where the key"
        " had 0 rows, in the order 1:BEGIN "
    )
    assert sql(database, OURS) == [(0,)]


def test_a_server_that_is_not_there_is_one_line() -> None:
    status, _, errors = legacy.run("host=127.0.0.1 port=1", "prove")
    assert status == 1
    assert errors.startswith("prove: connection")
    assert "Traceback" not in errors


def test_a_right_that_is_lacking_is_named(database: str) -> None:
    role = "onerow_test_prover"
    make_role(database, role)
    status, output, errors = legacy.run(make_conninfo(database, user=role), "prove")
    assert (status, output) == (1, "")
    said, _, grant = errors.strip().partition(": GRANT ")
    assert said.startswith("prove: permission denied for database ")
    sql(database, f"GRANT {grant}")
    with psycopg.connect(make_conninfo(database, user=role)) as connection:
        connection.execute("CREATE SCHEMA onerow_prove")


ADA = {"id": 1, "name": "Ada"}
CREATED, FOUND = Answer(201, ADA, {}), Answer(200, ADA, {})
TWO_LISTED = Answer(200, {"items": [ADA, {"id": 2, "name": "Grace"}]}, {})

CREATES = ("create", "create")


@pytest.mark.parametrize(
    ("kinds", "answers", "wrong"),
    [
        (CREATES, [CREATED, FOUND], ""),
        (CREATES, [CREATED, Answer(500, None, {})], "a request was answered 500"),
        (CREATES, [CREATED, CREATED], "two requests were told that they had created one key"),
        (
            ("create", "list"),
            [CREATED, TWO_LISTED],
            "a request was told of a row that is not there, 2,",
        ),
        (("delete", "list"), [Answer(204, None, {}), TWO_LISTED], ""),
    ],
)
def test_what_breaks_the_promise(kinds: tuple[str, str], answers: list[Answer], wrong: str) -> None:
    tasks = [SimpleNamespace(result=lambda answer=each: answer) for each in answers]
    run: Any = SimpleNamespace(sessions=[SimpleNamespace(task=each) for each in tasks])
    assert command._wrong(run, kinds, [("employees", 1, "Ada", 1)]) == wrong


@pytest.mark.long
@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
@pytest.mark.parametrize("silence", [gate.SILENCE, 0], ids=["quiet", "busy"])
def test_behind_a_pooler(
    silence: float,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # On a busy machine a step may take longer than the silence by which it counts as blocked.
    monkeypatch.setattr(gate, "SILENCE", silence)
    with pooling(database) as pgbouncer:
        status, _, errors = legacy.run(pgbouncer.url, "prove", POOLER="1")
        assert status == 1
        assert errors == "prove: behind a pooler it needs a database without a table employees\n"
        sql(database, "DROP TABLE employees, departments, merged")
        monkeypatch.setattr(command, "SECONDS", 2)
        assert prove(pgbouncer.url, settings(pgbouncer.url, pooler=True))
        assert "POOLER=1 and PIPELINE=0" in capsys.readouterr().out
        tables = "SELECT to_regclass('employees'), to_regclass('departments')"
        assert sql(database, tables) == [(None, None)]


@pytest.mark.long
def test_all_is_well(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SECONDS", 3600)  # on a busy machine two minutes are not enough
    assert prove(database, settings(database))
    ((typed, printed),) = turns(section("docs/machines.md#does-your-server-keep-the-guarantee"))
    assert typed == ".venv/bin/python -m db prove"
    said = capsys.readouterr().out
    assert re.sub(VARYING, "", said).split() == re.sub(VARYING, "", printed).split()
