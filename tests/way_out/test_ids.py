"""Ids and times that Python does not write as PostgreSQL does, or cannot hold, are no obstacle."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.adopting import commands
from tests.support.service import sql

Run = Callable[..., str]


@pytest.fixture
def of_type(new_database: Callable[[], str], tmp_path: Path) -> Callable[..., Run]:
    """A function that makes a table with two copies, whose ids are of a type, and adopts it."""

    def make(type_: str, stays: str, goes: str) -> Run:
        database = new_database()
        sql(
            database,
            f"""
            CREATE TABLE c (
                id {type_} PRIMARY KEY, email text NOT NULL,
                created_at timestamptz NOT NULL DEFAULT 'infinity');
            CREATE TABLE o (id int PRIMARY KEY, c {type_} REFERENCES c);
            CREATE INDEX ON o (c);
            INSERT INTO c VALUES ('{stays}', 'a'), ('{goes}', 'a');
            INSERT INTO o VALUES (1, '{goes}');
            """,
        )
        run = commands(database, tmp_path, "c", "--key", "email")
        assert "1 keys have 1 rows too many.\nNext: " in run("adopt")
        return run

    return make


IDS = {
    "numeric": ("0", "0.00000012"),
    "boolean": ("false", "true"),
    "date": ("-infinity", "infinity"),
    "time": ("00:00:00", "24:00:00"),
    "timestamp": ("2026-01-01 00:00:00", "infinity"),
    "timestamptz": ("-infinity", "infinity"),
}


@pytest.mark.parametrize("type_", IDS)
def test_rows_are_shown_merged_and_put_back(type_: str, of_type: Callable[..., Run]) -> None:
    stays, goes = IDS[type_]
    run = of_type(type_, stays, goes)
    assert f"{stays} stays, {goes} would go" in run("merge").lower()
    run("merge", "--apply")
    assert sql(run(), "SELECT id, kept, pointed FROM merged") == [(goes, stays, {"o.c": ["1"]})]
    run("merge", "--undo")
    assert sql(run(), "SELECT c::text FROM o") == [(goes,)]


def test_times_are_listed_by_the_second_or_as_they_are(of_type: Callable[..., Run]) -> None:
    run = of_type("timestamp", *IDS["timestamp"])
    sql(run(), "UPDATE c SET created_at = '2020-01-02T03:04:05.6Z' WHERE id < 'infinity'")
    listed = run("duplicates", "--format", "json", ends=1)
    (row,) = json.loads(listed)
    assert (row["id"], row["first_created_at"], row["last_created_at"]) == (
        "2026-01-01 00:00:00", "2020-01-02T03:04:05Z", "infinity"
    )  # fmt: skip


@pytest.mark.usefixtures("durable")
def test_doctor_tries_rows_with_times_that_python_cannot_hold(of_type: Callable[..., Run]) -> None:
    run = of_type("date", *IDS["date"])
    sql(run(), "ALTER TABLE c ALTER id SET DEFAULT current_date")
    run("init")
    assert "ok     c trial: 5 of 5 keys" in run("doctor")
