"""Text from the database can neither control the terminal nor look like a line of a command."""

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from db.texts import inert
from tests.support import legacy
from tests.support.service import LIMIT, ROOT, environment, sql

# This clears the screen, reverses the rest of the line, and begins a line of doctor's.
HOSTILE = "x\x1b[2J\x9b\u202e\u2066\nok     server: forged\r\x07\u2028"
NAME = f'"{HOSTILE}"'
LITERAL = f"'{HOSTILE}'"


def assert_harmless(text: str) -> None:
    assert "[2J" in text, "nothing of it was shown"
    for line in text.removesuffix("\n").split("\n"):
        assert line.isprintable(), line
        assert not line.startswith("ok     server: forged"), line


@pytest.fixture
def catalog(database: str) -> str:
    """A database with duplicates whose tables, columns and indexes have hostile names."""
    sql(database, f"CREATE TABLE {NAME} ({NAME} bigint REFERENCES employees)")
    sql(database, "INSERT INTO departments (name) VALUES ('Sales')")
    sql(
        database,
        "INSERT INTO employees (department_id, name) SELECT 1, 'Ada' FROM generate_series(1, 2)",
    )
    sql(database, f'CREATE UNIQUE INDEX "y{HOSTILE}" ON departments (name)')
    return database


@pytest.mark.parametrize("words", ["doctor", "duplicates", "merge", "merge --apply"])
def test_names_of_the_catalog(catalog: str, words: str) -> None:
    status, output, errors = legacy.run(catalog, *words.split())
    assert status == 1
    assert_harmless(output + errors)


@pytest.fixture
def raising(database: str) -> str:
    """A database whose triggers raise hostile messages, and whose duplicates have hostile names."""
    sql(
        database,
        "CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION USING MESSAGE = {LITERAL}, DETAIL = {LITERAL}, HINT = {LITERAL};"
        " END $$;"
        "CREATE TRIGGER object BEFORE DELETE ON departments"
        " FOR EACH ROW EXECUTE FUNCTION object()",
    )
    sql(database, f"INSERT INTO departments (name) SELECT {LITERAL} FROM generate_series(1, 2)")
    return database


@pytest.mark.parametrize("words", ["duplicates", "merge", "merge --apply", "enforce"])
def test_names_and_messages_of_the_tables(raising: str, words: str) -> None:
    _, output, errors = legacy.run(raising, *words.split())
    assert_harmless(output + errors)


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_an_id_that_is_text(form: str, database: str) -> None:
    sql(database, "ALTER TABLE employees DROP CONSTRAINT employees_department_id_fkey")
    sql(database, "ALTER TABLE employees ALTER department_id TYPE text")
    sql(database, "ALTER TABLE departments ALTER id DROP IDENTITY")
    sql(database, "ALTER TABLE departments ALTER id TYPE text")
    for number in (1, 2):
        row = f"E'{number}' || {LITERAL}, 'Sales', now()"
        sql(database, f"INSERT INTO departments (id, name, created_at) SELECT {row}")
    words = ("duplicates", "--format", form, "departments")
    terminal, end = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "db", *words],
        cwd=ROOT,
        env=environment(DATABASE_URL=database),
        stdout=end,
        stderr=end,
    ):
        os.close(end)
        with suppress(OSError):  # Linux tells so that the other end is closed
            while part := os.read(terminal, 4096):
                shown += part
    os.close(terminal)
    assert_harmless(shown.decode().replace("\r\n", "\n"))
    if form == "csv":  # a program gets it as it is
        assert "1x\x1b[2J" in legacy.run(database, *words)[1]


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "db", HOSTILE],
        ["-m", "db", "merge", "--limit", HOSTILE],
        ["-m", "db", "doctor", HOSTILE],
        ["-m", "db", "adopt", "a", "--key", "b", HOSTILE],
        ["app.py", HOSTILE],
    ],
)
def test_what_the_command_line_says(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 2
    assert_harmless(done.stderr)


@pytest.mark.long
def test_what_an_event_trigger_says(database: str) -> None:
    sql(
        database,
        "CREATE FUNCTION object() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION USING MESSAGE = {LITERAL}, DETAIL = {LITERAL}; END $$;"
        "CREATE EVENT TRIGGER object ON ddl_command_start EXECUTE FUNCTION object()",
    )
    for words in ("guard on", "enforce"):
        status, output, errors = legacy.run(database, *words.split())
        assert status == 1
        assert_harmless(output + errors)


def test_what_the_environment_says() -> None:
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(HOST=HOSTILE.replace("\n", " ")),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert_harmless(done.stderr)


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@a", "\ta", "\ra", '"=1', "''=1", "＝1"])
def test_a_cell_that_a_spreadsheet_would_run(cell: str) -> None:
    assert inert(cell) == f"'{cell}"


@pytest.mark.parametrize(
    ("cell", "inert_cell"),
    [
        ("x;=1", "x;'=1"),
        ("x\t+1", "x\t'+1"),
        ("x\r\n-1", "x\r\n'-1"),
        ("x\n@a;＝1", "x\n'@a;'＝1"),
        ("x;\"'=1", "x;'\"'=1"),
        ("=1;=1", "'=1;'=1"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        (";;=1", ";;'=1"),
        ("x;1;y", "x;1;y"),
    ],
)
def test_a_cell_of_which_a_spreadsheet_would_make_several(cell: str, inert_cell: str) -> None:
    assert inert(cell) == inert_cell


@pytest.mark.parametrize("cell", ["", "a", "1", "1-1", "a=1", " =1", "-Infinity", '{"a": "=1"}'])
def test_a_cell_that_no_spreadsheet_would_run(cell: str) -> None:
    assert inert(cell) == cell
