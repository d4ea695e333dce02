"""The sessions of README and docs answer as printed, in a real shell; their SQL is the files'."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from db.programs import BIN
from db.settings import Settings
from tests.support import legacy
from tests.support.documents import blocks, section, turns
from tests.support.service import LIMIT, ROOT, environment, serving, sql

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the session needs curl")

# These differ from run to run.
VARYING = [
    (r"date: .*", "date: DATE"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"content-length: \d+", "content-length: N"),  # zeros at the end of a time are left out
    (r"dur=[\d.]+", "dur=MS"),
    (r"x-request-id: .*", "x-request-id: ID"),
    # Losers have drawn ids, too, so that the winner's may be any of a hundred.
    (r'"id":\d+,"department_id"', '"id":ID,"department_id"'),
    # Merge is at work on two keys at once, and the row of either may have the first step.
    (r"limit=1&after=\d+", "limit=1&after=STEP"),
]


def masked(text: str) -> str:
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def run(*command: object, given: str | None = None) -> str:
    """Run a command that must succeed, with this input; return what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        input=given,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers(commands: list[str], port: int) -> list[str]:
    """Run commands that talk to a service, in one shell; return what each of them prints."""
    script = "".join(f"{command}\necho; echo END\n" for command in commands)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"],
        input=script.replace("127.0.0.1:8000", f"127.0.0.1:{port}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return done.stdout.replace("\r", "").split("END\n")[:-1]


@needs_curl
def test_the_session_answers_as_printed(database: str) -> None:
    session = turns(section("README.md#a-session"))
    assert len(session) == 7
    with serving(DATABASE_URL=database) as service:
        answered = answers([command for command, _ in session], service.port)
    assert [masked(each) for each in answered] == [masked(printed) for _, printed in session]


@needs_curl
def test_lines_are_answered_as_printed(database: str, tmp_path: Path) -> None:
    ((command, printed),) = turns(section("docs/http.md#many-keys-in-one-request"))
    items = tmp_path / "items.ndjson"
    items.write_text('{"name": "Legal"}\n{}\n')
    sql(database, "ALTER TABLE departments ALTER id RESTART 4")
    with serving(DATABASE_URL=database) as service:
        (answered,) = answers([command.replace("items.ndjson", str(items))], service.port)
    assert masked(answered) == masked(printed)


@needs_curl
def test_a_question_answers_as_printed(database: str) -> None:
    question, psql = turns(section("docs/inside.md#looking-inside"))
    assert psql == ("make psql", "")
    with serving(DATABASE_URL=database) as service:
        (answered,) = answers([question[0]], service.port)
    assert answered.strip() == question[1].strip()


COMMANDS = run(sys.executable, "-m", "db", "--help")


@needs_curl
@pytest.mark.skipif("adopt" not in COMMANDS, reason="there is no command adopt yet")
def test_a_table_of_ones_own_takes_five_lines(server: str, tmp_path: Path) -> None:
    told = section("docs/own-table.md#your-own-table")
    lines, printed = zip(*turns(told), strict=True)
    assert list(lines) == [command for command, _ in turns(section("README.md#your-own-table"))]
    sql(server, "CREATE DATABASE onerow_test_own_table")
    database = make_conninfo(server, dbname="onerow_test_own_table")
    (table,) = blocks(told, "sql")
    sql(database, table)
    sql(
        database,
        "INSERT INTO customers (email, full_name) VALUES ('ada@example.org', 'Ada L.'),"
        " ('Ada@Example.org', 'Ada'), ('grace@example.org', 'Grace'),"
        " ('Grace@example.org', NULL), ('GRACE@example.org', NULL), ('joan@example.org', 'Joan')",
    )
    export, adopt, init, make, curl = lines
    folder = tmp_path / "shop" / "onerow"  # adopt makes it
    script = f"{export}\n{adopt}\n{init}"
    for theirs, ours in (
        ("postgresql://user:password@host/database", f'"{database}"'),
        ("~/shop/onerow", str(folder)),
        (".venv/bin/python", sys.executable),
    ):
        assert theirs in script
        script = script.replace(theirs, ours)
    said = run("bash", "-e", given=script).replace(str(folder), "/home/ada/shop/onerow")
    assert said == "".join(printed[:3])
    assert make == "make run"
    with serving(DATABASE_URL=database, RESOURCES=str(folder)) as service:
        json = turns(section("README.md#a-session"))[0][0]
        _, found = answers([json, curl], service.port)
        assert found.strip() == printed[4].strip()
        email = "Ada@Example.org"
        assert service.post("/customers", email=email).headers["Duplicates"] == "2"
        assert service.post("/customers", email=f"new.{email}").status_code == 201
    tables = sql(database, "SELECT relname::text FROM pg_stat_user_tables ORDER BY 1")
    assert tables == [("customers",), ("merged",)]


@pytest.mark.long
@needs_curl
def test_a_road_of_ones_own(new_database: Callable[[], str], tmp_path: Path) -> None:
    told = section("docs/duplicates.md#a-table-of-your-own")
    database = new_database()
    sql(database, "DROP TABLE departments, employees, merged")
    (tables,) = blocks(told, "sql")
    sql(database, tables)
    (export, _), *road = turns(told)
    folder = tmp_path / "shop" / "onerow"
    script = export.replace("postgresql://user:password@host/database", f"'{database}'")
    script = script.replace("~/shop/onerow", str(folder))
    said = []
    for command, _ in road:
        if command.startswith("curl "):
            with serving(DATABASE_URL=database, RESOURCES=str(folder)) as service:
                said += answers([command], service.port)
        else:
            words = command.replace(".venv/bin/python", sys.executable)
            said.append(run("bash", "-e", given=f"{script}\n{words}"))
    found = [masked(each.replace(str(folder), "/home/ada/shop/onerow")) for each in said]
    assert found == [masked(printed) for _, printed in road]


@pytest.mark.usefixtures("durable")
def test_the_road_goes_as_printed(database: str) -> None:
    # The tables are like those of the printed session, and a hundred times smaller.
    sql(
        database,
        "INSERT INTO departments (name, created_at)"
        " SELECT 'Department ' || n %% 80, '2024-01-01' FROM generate_series(0, 99) AS n",
    )
    sql(
        database,
        "INSERT INTO employees (department_id, name, created_at)"
        " SELECT n %% 9000 %% 100 + 1, 'Employee ' || n %% 9000 / 100, '2024-01-01'"
        " FROM generate_series(0, 9999) AS n",
    )
    road = turns(section("docs/duplicates.md#the-session"))
    assert len(road) == 6
    for command, printed in road:
        words = command.removeprefix(".venv/bin/python -m db ")
        assert words != command
        _, output, errors = legacy.run(database, *words.split())
        assert errors == ""
        said = iter(digits_masked(output).splitlines())
        for line in digits_masked(printed.replace("...\n", "")).splitlines():
            assert line in said, line  # consumes the iterator, so that the order counts, too


def digits_masked(text: str) -> str:
    text = re.sub("(advice role: ).* is a superuser.*:", r"\1is a superuser:", text)
    return re.sub(r" *[\d,.T:Z-]+", " N", text.replace("Bitmap ", ""))


@pytest.mark.parametrize("name", ["select", "insert"])
def test_the_sql_is_that_of_the_files(name: str) -> None:
    lines = (ROOT / f"sql/employees/{name}.sql").read_text().splitlines(keepends=True)
    statement = "".join(line for line in lines if not line.startswith("--"))
    assert statement in blocks(section("docs/inside.md#what-a-post-sends"), "sql")


def test_the_comment_lines_are_those_of_the_file() -> None:
    lines, _ = blocks(section("docs/own-table.md#the-files"), "sql")
    assert (ROOT / "sql/employees/select.sql").read_text().startswith(lines)


def test_a_filter_is_added_as_printed(database: str, tmp_path: Path) -> None:
    _, added = blocks(section("docs/own-table.md#the-files"), "sql")
    of_no_column = """\
-- $6 beginning text, or NULL for any
  AND ($6::text IS NULL OR starts_with(name, $6::text))"""
    shutil.copytree(ROOT / "sql/departments", tmp_path / "departments")
    shutil.copytree(ROOT / "sql/employees", tmp_path / "employees")
    list_ = tmp_path / "employees" / "list.sql"
    text = list_.read_text()
    for each in (added, of_no_column):
        parameter, condition = each.splitlines()
        text = text.replace("SELECT", f"{parameter}\nSELECT", 1)
        text = text.replace("ORDER BY", f"{condition}\nORDER BY")
    list_.write_text(text)
    with serving(DATABASE_URL=database, RESOURCES=str(tmp_path)) as service:
        department = service.post("/departments", name="Research").json()["id"]
        made = service.post("/employees", department_id=department, name="Ada").json()
        for query, found in {
            "created_since=2001-01-01T00:00:00Z": [made],
            "created_since=2101-01-01T00:00:00Z": [],
            "beginning=A": [made],
            "beginning=B": [],
        }.items():
            listed = service.http.get(f"/employees?{query}")
            assert listed.json()["items"] == found


def test_the_lock_is_a_page(database: str) -> None:
    # The lookup must use the index even where PostgreSQL knows the table to be empty.
    sql(database, "ANALYZE")
    (script,) = blocks(section("docs/inside.md#the-lookup-and-why-it-is-written-so"), "sql")
    psql = (BIN / "psql", "--no-psqlrc", "--quiet", "--csv", "--tuples-only")
    locked = run(*psql, database, given=script)
    assert re.fullmatch(r"page,departments_lookup,\d+\n", locked)


def test_every_variable_is_named() -> None:
    table = section("docs/operating.md#configuration")
    for field in (*Settings.__struct_fields__, "resources"):
        assert field.upper() in table


def test_the_benchmark_takes_these_words() -> None:
    commands = [command for command, _ in turns(section("tests/bench/README.md#the-benchmark"))]
    modules = [command.split()[2:] for command in commands if not command.startswith("make ")]
    names = ("many", "guard", "merge", "parts")
    parts = ["tests.bench", *(f"tests.bench.{name}" for name in names)]
    assert [module for module, *_ in modules] == parts
    for module, *words in modules:
        assert find_spec(module)
        if words:
            told = run(sys.executable, "-m", module, *words, "--help")
            assert {word for word in words if word.startswith("--")} <= set(told.split())
