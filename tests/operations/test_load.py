"""`python -m db load` gets or creates a row for each row of a file, and loses none."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from db.load.files import csv_rows
from db.resources import RESOURCES, read_resource
from db.way_out.change import Refused
from tests.support import adopting, legacy
from tests.support.documents import section, turns
from tests.support.folders import Part, write
from tests.support.service import LIMIT, ROOT, environment, sql, until


@pytest.fixture(scope="module")
def database(new_database: Callable[[], str]) -> str:
    database = new_database()
    sql(database, "INSERT INTO departments (name) VALUES ('Research'), ('Sales')")
    return database


@pytest.fixture
def employees(database: str) -> Iterator[str]:
    """The database, without employees at the end."""
    yield database
    sql(database, "TRUNCATE employees")


def names(database: str) -> list[str]:
    return [name for (name,) in sql(database, "SELECT name FROM employees ORDER BY id")]


def refusals(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"{file}.refused.ndjson").read_text().splitlines()]


def test_a_file_of_csv(employees: str, tmp_path: Path) -> None:
    sql(employees, "INSERT INTO employees (department_id, name) VALUES (2, 'Grace'), (2, 'Grace')")
    file = tmp_path / "employees.csv"
    file.write_text(
        "\ufeffname,department_id\r\n"
        'Ada,1\r\n"O\'Brien, ""Bob""\nJr.",1\r\n\r\nGrace,2\r\nAda,1\r\n'
        'Nobody,99\r\n"",1\r\nAda,x\r\nAda,1,2\r\nLinus,2\r\n'
    )
    status, output, errors = legacy.run(employees, "load", "employees", str(file))
    assert (status, errors) == (1, "")
    counts, told = output.splitlines()
    assert counts.startswith("9 rows: 3 created, 2 existing, 4 refused, ")
    assert told == f"What was refused, and why, is in {file}.refused.ndjson."
    assert names(employees) == ["Grace", "Grace", "Ada", 'O\'Brien, "Bob"\nJr.', "Linus"]
    assert [
        (each["line"], each["status"], each["row"], each.get("errors", [{}])[0].get("pointer"))
        for each in refusals(file)
    ] == [
        (8, 422, {"department_id": 99, "name": "Nobody"}, "#/department_id"),
        (9, 422, {"department_id": 1, "name": ""}, "#/name"),
        (10, 422, {"department_id": "x", "name": "Ada"}, "#/department_id"),
        (11, 422, ["Ada", "1", "2"], None),
    ]
    assert refusals(file)[3]["detail"] == "has 3 cells, and the first line 2"


def test_a_file_is_loaded_as_printed(employees: str, tmp_path: Path) -> None:
    (_, content), (_, printed), (_, refused) = turns(section("docs/own-table.md#loading-a-file"))
    sql(employees, "INSERT INTO employees (department_id, name) VALUES (1, 'Ada Lovelace')")
    file = tmp_path / "employees.csv"
    file.write_text(content)
    status, output, errors = legacy.run(employees, "load", "employees", str(file))
    assert (status, errors) == (1, "")
    speed = re.compile(r"[\d,]+ a second")
    assert speed.sub("", output.replace(f"{tmp_path}/", "")) == speed.sub("", printed)
    assert Path(f"{file}.refused.ndjson").read_text() == refused


def test_a_line_that_is_nested_too_deep_is_refused_alone(employees: str, tmp_path: Path) -> None:
    file = tmp_path / "employees.ndjson"
    deep = "[" * 1500 + "]" * 1500  # more than Python's recursion takes
    file.write_text(f'{deep}\n{{"department_id": 1, "name": "Ada"}}\n')
    status, output, errors = legacy.run(employees, "load", "employees", str(file))
    assert (status, errors) == (1, "")
    assert output.startswith("2 rows: 1 created, 0 existing, 1 refused, ")
    assert [(each["line"], each["status"], each["row"]) for each in refusals(file)] == [
        (1, 400, deep)
    ]


@pytest.mark.long
def test_lines_of_json_and_what_was_refused_once_more(employees: str, tmp_path: Path) -> None:
    file = tmp_path / "employees.ndjson"
    lines = ['{"department_id": 3, "name": "Ada"}', "", '{"department_id": 1', '["Ada"]']
    more = [json.dumps({"department_id": 1, "name": f"Ada {number}"}) for number in range(5000)]
    file.write_text("\n".join([*lines, *more]))
    status, output, _ = legacy.run(employees, "load", "employees", str(file))
    assert status == 1
    assert output.startswith("5,003 rows: 5,000 created, 0 existing, 3 refused, ")
    assert [(each["line"], each["status"], each["row"]) for each in refusals(file)] == [
        (1, 422, {"department_id": 3, "name": "Ada"}),
        (3, 400, '{"department_id": 1'),
        (4, 422, ["Ada"]),
    ]
    sql(employees, "INSERT INTO departments (id, name) OVERRIDING SYSTEM VALUE VALUES (3, 'HR')")
    again = tmp_path / "again.ndjson"
    again.write_text(json.dumps(refusals(file)[0]["row"]))
    status, output, _ = legacy.run(employees, "load", "employees", str(again))
    assert status == 0
    assert output.startswith("1 rows: 1 created, 0 existing, 0 refused, ")
    assert not Path(f"{again}.refused.ndjson").exists()


def test_a_loading_that_was_killed_is_run_again(employees: str, tmp_path: Path) -> None:
    rows = [f"1,Ada {number}\n" for number in range(4000)]
    pipe, file = tmp_path / "pipe.csv", tmp_path / "file.csv"
    os.mkfifo(pipe)
    with legacy.start(employees, "load", "employees", str(pipe)) as process:
        with pipe.open("w") as writer:
            writer.writelines(["department_id,name\n", *rows[:2000]])
            writer.flush()
            until(lambda: len(names(employees)) > 100)
            (service,) = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
    assert not psutil.wait_procs([service], LIMIT)[1]  # it ends with the loading
    file.write_text("".join(["department_id,name\n", *rows]))
    status, output, errors = legacy.run(employees, "load", "employees", str(file))
    assert (status, errors) == (0, "")
    assert output.startswith("4,000 rows: ")
    assert sorted(names(employees)) == sorted(f"Ada {number}" for number in range(4000))


@pytest.mark.long
def test_connections_that_break_lose_nothing(employees: str, tmp_path: Path) -> None:
    file = tmp_path / "pipe.csv"
    os.mkfifo(file)
    with legacy.start(employees, "load", "employees", str(file)) as process:
        with file.open("w") as writer:
            writer.write("department_id,name\n")
            for part in range(10):
                writer.writelines(f"1,Ada {part} {number}\n" for number in range(300))
                writer.flush()
                until(lambda part=part: len(names(employees)) > 200 * part)  # type: ignore[misc]
                sql(
                    employees,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'onerow' AND datname = current_database()",
                )
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert output.startswith("3,000 rows: ")
    assert len({*names(employees)}) == len(names(employees)) == 3000


@pytest.mark.long
def test_a_table_that_is_away_for_a_moment_costs_no_row(employees: str, tmp_path: Path) -> None:
    def ports() -> set[int]:
        return {each.laddr.port for each in psutil.Process(process.pid).net_connections("tcp")}

    file = tmp_path / "pipe.csv"
    os.mkfifo(file)
    with legacy.start(employees, "load", "employees", str(file)) as process:
        with file.open("w") as writer:
            writer.write("department_id,name\n")
            writer.writelines(f"1,Ada {number}\n" for number in range(1000))
            writer.flush()
            until(lambda: names(employees) != [])
            first = ports()
            sql(employees, "ALTER TABLE employees RENAME TO elsewhere")
            writer.writelines(f"1,Ada {number}\n" for number in range(1000, 3000))
        # The first request has ended with a 503, and another one sends what it did not answer.
        until(lambda: not ports() <= first)
        sql(employees, "ALTER TABLE elsewhere RENAME TO employees")
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert output.startswith("3,000 rows: ")
    assert ", 0 refused, " in output
    assert len({*names(employees)}) == len(names(employees)) == 3000


def test_a_person_sees_how_far_it_is(employees: str, tmp_path: Path) -> None:
    file = tmp_path / "employees.csv"
    file.write_text("department_id,name\n" + "".join(f"1,Ada {n}\n" for n in range(3000)))
    screen, terminal = pty.openpty()
    with legacy.start(employees, "load", "employees", str(file), stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while part := _read(screen):
            shown += part
        output, _ = process.communicate(timeout=LIMIT)
    os.close(screen)
    assert output.startswith("3,000 rows: 3,000 created, 0 existing, 0 refused, ")
    first, *_ = shown.decode().lstrip("\r").split("\r")
    assert first.startswith("[")
    assert "% " in first
    assert first.endswith(" left ")
    assert shown.endswith(b"\r\x1b[K")


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 4096)
    except OSError:  # nobody has the terminal any more
        return b""


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "the first line must name, each once, department_id, name"),
        (b"name\nAda\n", "the first line must name, each once, department_id, name"),
        (b"department_id,name,age\n", "the first line must name, each once, department_id, name"),
        (b"department_id,name,name\n", "the first line must name, each once, department_id, name"),
        (b"department_id,name\n1,A\n1,\xff\n", "line 3 is not UTF-8, and ends the loading"),
        (b'department_id,name\n1,"A"b\n', "line 2 is not CSV, and ends the loading: "),
        (b'department_id,name\n1,"A\n', "line 2 is not CSV, and ends the loading: "),
    ],
)
def test_what_is_no_csv(content: bytes, fault: str) -> None:
    with pytest.raises(Refused) as raised:
        list(csv_rows(io.BytesIO(content), RESOURCES["employees"]))
    assert str(raised.value).startswith(fault)


@pytest.mark.parametrize(
    ("must", "may", "told"),
    [
        (["email"], ["at", "note"], "email, at, note; at, note may be left out"),
        (["email", "at"], [], "email, at"),
        ([], ["email"], "email; email may be left out"),
    ],
)
def test_what_the_first_line_may_leave_out(
    must: list[str], may: list[str], told: str, tmp_path: Path
) -> None:
    parts = [Part(name, "text", notes=", or NULL" if name in may else "") for name in must + may]
    write(tmp_path, "people", parts[:1], attributes=parts[1:])
    people = read_resource(tmp_path / "people")
    with pytest.raises(Refused) as raised:
        list(csv_rows(io.BytesIO(b"name\nAda\n"), people))
    assert str(raised.value) == f"the first line must name, each once, {told}"
    first = ",".join(must or may)
    assert len(list(csv_rows(io.BytesIO(f"{first}\n{first}\n".encode()), people))) == 1


def test_null_in_the_only_column_of_a_file(database: str, tmp_path: Path) -> None:
    sql(database, "CREATE TABLE words (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, w text)")
    adopting.adopt(database, tmp_path, "words", "--key", "w")
    file = tmp_path / "words.csv"
    with psycopg.connect(database) as connection, file.open("wb") as rows:
        words = "SELECT * FROM (VALUES ('a'), (NULL), ('b'), (NULL)) AS words (w)"
        with connection.cursor().copy(f"COPY ({words}) TO STDOUT (FORMAT csv, HEADER)") as copy:
            rows.writelines(copy)
    assert file.read_text() == "w\na\n\nb\n\n"
    resources = {"RESOURCES": str(tmp_path)}
    assert legacy.run(database, "init", **resources)[0] == 0
    status, output, errors = legacy.run(database, "load", "words", str(file), **resources)
    assert (status, errors) == (0, "")
    assert output.startswith("4 rows: 3 created, 1 existing, 0 refused, ")
    assert sql(database, "SELECT w FROM words ORDER BY w") == [("a",), ("b",), (None,)]


def test_an_empty_line_is_no_row_where_no_field_may_be_null() -> None:
    rows = csv_rows(io.BytesIO(b"name\n\nAda\n\n"), RESOURCES["departments"])
    assert [row.body for row in rows] == [b'{"name":"Ada"}']


def test_what_ends_a_loading(employees: str, tmp_path: Path) -> None:
    file = tmp_path / "employees.csv"

    def load(*words: str) -> tuple[int, str, str]:
        return legacy.run(employees, "load", "employees", str(file), *words)

    assert load() == (1, "", f"load: {file}: No such file or directory\n")
    file.write_bytes(b"department_id,name\n1,Ada\n1,\xff\n1,Grace\n")
    status, output, errors = load()
    assert (status, errors) == (1, "load: line 3 is not UTF-8, and ends the loading\n")
    assert output.startswith("1 rows: 1 created, ")
    kept = Path(f"{file}.refused.ndjson")
    kept.write_text("of another day\n")
    told = f"load: {kept} is there: move it away, or name another as --refused\n"
    assert load() == (1, "", told)
    assert kept.read_text() == "of another day\n"
    assert names(employees) == ["Ada"]
    other = legacy.run(employees, "load", "employees", "employees.txt")
    assert other == (1, "", "load: employees.txt must end in .csv or .ndjson\n")


@pytest.mark.long
def test_a_database_that_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "employees.csv"
    file.write_text("department_id,name\n1,Ada\n")
    done = subprocess.run(
        [sys.executable, "-c", TRIED_ONCE, "load", "employees", str(file)],
        cwd=ROOT,
        env=environment(DATABASE_URL="postgresql://127.0.0.1:9/none"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("0 rows: ")
    assert done.stderr.startswith("load: line 2 is not answered: ")
    assert "Traceback" not in done.stderr


# A person would wait for half a minute.
TRIED_ONCE = """
from db import __main__
from db.load import command
command.TRIES = 1
__main__.main()
"""
