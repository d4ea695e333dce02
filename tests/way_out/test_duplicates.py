"""The report of duplicates is complete, has three formats, and needs little memory."""

import csv
import io
import json
import subprocess
import sys

import pytest

from tests.support import legacy
from tests.support.service import ROOT, environment, sql


@pytest.fixture
def few(database: str) -> str:
    sql(
        database,
        "INSERT INTO departments (name, created_at) VALUES ('Sales', '2020-01-02T03:04:05Z'),"
        " (E'\\x1b[31m\"red\"', now()), ('Sales', '2022-01-02T03:04:05Z'), ('Legal', now())",
    )
    sql(
        database,
        "INSERT INTO employees (department_id, name, created_at)"
        " SELECT d, n, 'infinity' FROM (VALUES (1, 'Ada'), (3, 'Ada'), (3, 'Ada'), (3, 'Ada'),"
        " (2, 'Alan'), (2, 'Alan'), (2, 'Grace')) AS t (d, n)",
    )
    return database


def test_the_table_tells_how_many_and_the_worst(few: str) -> None:
    status, output, _ = legacy.run(few, "duplicates")
    assert status == 1
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines[0] == "departments: 1 keys have 1 rows too many."
    assert lines[2] == '2 1 2020-01-02T03:04:05Z 2022-01-02T03:04:05Z 4 {"name": "Sales"}'
    assert lines[3] == "employees: 2 keys have 3 rows too many."
    assert [line.split()[0] for line in lines[5:]] == ["3", "2"]


def test_json_and_csv_hold_every_key(few: str) -> None:
    rows = json.loads(legacy.run(few, "duplicates", "--format", "json")[1])
    assert [(row["resource"], row["key"], row["copies"], row["id"]) for row in rows] == [
        ("departments", {"name": "Sales"}, 2, 1),
        ("employees", {"department_id": 3, "name": "Ada"}, 3, 2),
        ("employees", {"department_id": 2, "name": "Alan"}, 2, 5),
    ]
    assert rows[0]["first_created_at"] == "2020-01-02T03:04:05Z"
    assert rows[0]["referring"] == 4
    listed = csv.DictReader(io.StringIO(legacy.run(few, "duplicates", "--format", "csv")[1]))
    assert [json.loads(row["key"]) for row in listed] == [row["key"] for row in rows]


def test_without_duplicates_all_is_well(database: str) -> None:
    sql(database, "INSERT INTO departments (name) VALUES ('Sales'), ('sales')")
    assert legacy.run(database, "duplicates")[0] == 0
    assert legacy.run(database, "duplicates", "--format", "json")[:2] == (0, "[]\n")


def test_a_name_cannot_talk_to_the_terminal(few: str) -> None:
    sql(few, "INSERT INTO departments (name) SELECT name FROM departments WHERE id = 2")
    for form in ("table", "csv", "json"):
        assert "\x1b" not in legacy.run(few, "duplicates", "--format", form)[1]


def test_a_foreign_key_that_merge_does_not_know_is_told(few: str) -> None:
    sql(few, "CREATE TABLE badges (holder bigint REFERENCES employees)")
    assert "badges.holder" in legacy.run(few, "duplicates")[1]


def test_a_reader_that_leaves_is_no_error(database: str) -> None:
    sql(database, "INSERT INTO departments (name) SELECT n / 2 FROM generate_series(1, 40000) n")
    with legacy.start(database, "duplicates", "--format", "csv") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, "")


@pytest.mark.long
def test_a_million_duplicates_take_no_more_memory_than_a_few(few: str) -> None:
    before = peak(few)
    # The index would take most of the test's time.
    sql(few, "DROP INDEX departments_lookup")
    sql(
        few,
        "INSERT INTO departments (name) SELECT 'n ' || n / 2 FROM generate_series(1, 1000000) n",
    )
    # A report that kept the list in memory would take over 100 MB.
    assert peak(few) < before + 30_000_000


def peak(database: str) -> int:
    """Return the most bytes that `duplicates --format json` had in memory."""
    code = (
        "import resource, runpy, sys\n"
        "sys.argv = ['db', 'duplicates', '--format', 'json']\n"
        "try:\n    runpy.run_module('db', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(DATABASE_URL=database),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stderr) * (1 if sys.platform == "darwin" else 1024)
