"""Doctor has no false line for tables of a user's own, and the remedies of its lines work."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.support import legacy
from tests.support.adopting import commands
from tests.support.service import sql

pytestmark = pytest.mark.usefixtures("durable")

Run = Callable[..., str]


@pytest.fixture
def run(new_database: Callable[[], str], tmp_path: Path) -> Run:
    """A function that runs commands on a database and a folder, each empty at first."""
    return commands(new_database(), tmp_path)


def make(run: Run, statements: str) -> None:
    with psycopg.connect(run(), autocommit=True) as connection:
        connection.execute(statements.encode())


def lines(run: Run, folder: Path, subject: str) -> list[str]:
    """Return what doctor says about a subject. Its exit status also tells of the server."""
    _, said, errors = legacy.run(run(), "doctor", RESOURCES=str(folder))
    assert errors == ""
    return [line for line in said.splitlines() if line[7:].startswith(f"{subject}: ")]


# Lookups


@pytest.mark.parametrize("partitioned", [False, True], ids=["", "partitioned"])
def test_the_rows_that_an_order_counts_are_no_scan_of_the_lookup(
    partitioned: bool, run: Run, tmp_path: Path
) -> None:
    make(run, "CREATE TABLE people (id bigserial PRIMARY KEY, name text NOT NULL)")
    columns = "id bigserial PRIMARY KEY, person bigint REFERENCES people"
    if partitioned:
        make(run, f"CREATE TABLE calls ({columns}) PARTITION BY HASH (id)")
        for n in range(2):
            of = f"FOR VALUES WITH (MODULUS 2, REMAINDER {n})"
            make(run, f"CREATE TABLE calls_{n} PARTITION OF calls {of}")
    else:
        make(run, f"CREATE TABLE calls ({columns})")
    make(run, "CREATE INDEX ON calls (person)")
    run("adopt", "people", "--key", "name", "--keep", "referring DESC")
    run("init")
    for _ in range(2):
        assert lines(run, tmp_path, "people lookup") in (
            ["ok     people lookup: Bitmap Index Scan of people_lookup"],
            ["ok     people lookup: Index Scan of people_lookup"],
        )
        sql(run(), "INSERT INTO people (name) SELECT n FROM generate_series(1, 1000) AS n")
        sql(run(), "INSERT INTO calls (person) SELECT id FROM people, generate_series(1, 10)")
        sql(run(), "ANALYZE")


@pytest.mark.parametrize("covering", ["(name, id)", "(name) INCLUDE (id)"])
def test_an_index_of_all_columns_is_not_read_as_a_whole(
    covering: str, run: Run, tmp_path: Path
) -> None:
    make(run, "CREATE TABLE tags (id bigserial PRIMARY KEY, name text NOT NULL)")
    make(run, f"CREATE INDEX covering ON tags {covering}")
    run("adopt", "tags", "--key", "name")
    run("init")
    for _ in range(2):
        (line,) = lines(run, tmp_path, "tags lookup")
        assert line.startswith("ok ")
        assert line.endswith("Index Scan of tags_lookup")
        sql(run(), "INSERT INTO tags (name) VALUES ('new')")
        sql(run(), "VACUUM ANALYZE tags")


# Trials


def test_a_key_that_has_a_row_cannot_be_tried(run: Run, tmp_path: Path) -> None:
    make(
        run,
        "CREATE TYPE state AS ENUM ('open', 'done');"
        " CREATE TABLE states (id bigserial PRIMARY KEY, state state NOT NULL);"
        " CREATE TABLE notes (id bigserial PRIMARY KEY, note text);"
        " INSERT INTO states (state) VALUES ('open'), ('done');"
        " INSERT INTO notes (note) VALUES (NULL)",
    )
    run("adopt", "states", "--key", "state")
    run("adopt", "notes", "--key", "note")
    run("init")
    why = "not tried, for the key that was drawn has a row"
    assert lines(run, tmp_path, "states trial") == [f"advice states trial: a label: {why}"]
    null, others = lines(run, tmp_path, "notes trial")
    assert null == f"advice notes trial: no value: {why}"
    assert others.startswith("ok     notes trial: 5 of 6 keys, ")
