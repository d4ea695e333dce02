"""The pages under /inspect: a question answers in three forms, and can neither write nor hang."""

import csv
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from markupsafe import escape

from db.answers import ROW_LIMIT, SIZE_LIMIT
from db.embedded import embedded_server
from db.questions import PAGES, questions
from db.resources import RESOURCES
from tests.support import legacy
from tests.support.others import PROCEDURE, make_others, others, remembered
from tests.support.service import (
    ROOT,
    Service,
    collide,
    serving,
    sql,
    temporary_data_dir,
    until,
)
from web.traffic import WINDOW, Traffic

# Bytes that a page may have.
PAGE = 20_000


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    """A service on a database with duplicates, where anyone may put a name like this one."""
    database = new_database()
    legacy.fill(database, employees=5_000)
    sql(
        database,
        "INSERT INTO departments (name)"
        " SELECT '<script>alert(1)</script>' FROM generate_series(1, 9)",
    )
    sql(database, "CREATE EXTENSION pg_stat_statements")
    with serving(DATABASE_URL=database) as service:
        yield service


@pytest.fixture(scope="module")
def developed(new_database: Callable[[], str]) -> Iterator[tuple[Service, Path]]:
    """A service run from a copy of the checkout, and the copy's folder of questions."""
    with temporary_data_dir() as folder:
        folder.mkdir()
        for name in ("app.py", "db", "sql", "web"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        database = new_database()
        with serving(sys.executable, str(folder / "app.py"), DATABASE_URL=database) as service:
            yield service, folder / "sql" / "inspect"


@pytest.fixture
def drop(developed: tuple[Service, Path]) -> Iterator[Callable[[bytes], httpx.Response]]:
    """Drops a file among the questions of the running service and asks it, as JSON by default."""
    service, folder = developed
    path = folder / "dropped.sql"

    def ask(text: bytes, suffix: str = ".json", **values: str) -> httpx.Response:
        path.write_bytes(text)
        return service.http.get(f"/inspect/dropped{suffix}", params=values)

    yield ask
    path.unlink()


def rows(service: Service, name: str, **values: Any) -> list[dict[str, Any]]:
    answer = service.http.get(f"/inspect/{name}.json", params=values)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["rows"]
    return listed


# Every question


def test_the_index_lists_every_question_and_the_picture(service: Service) -> None:
    page = service.http.get("/inspect")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    listed = re.findall(r'href="/inspect/(\w+)"', page.text)
    files = [path.stem for path in (ROOT / "sql" / "inspect").glob("*.sql")]
    own = [f"{name}_{page}" for name in RESOURCES for page in PAGES]
    assert sorted(listed) == sorted([*files, *own, "traffic"])
    assert len(page.content) < PAGE


def test_the_index_goes_by_what_one_wants_to_know(service: Service) -> None:
    page = service.http.get("/inspect").text
    lists = re.findall(r"<h2>(.*?)</h2>\n<ul>(.*?)</ul>", page, re.DOTALL)
    assert {group: re.findall(r'href="/inspect/(\w+)"', listed) for group, listed in lists} == {
        "Duplicates and the constraint": [
            "departments_differences",
            "employees_differences",
            "departments_duplicates",
            "employees_duplicates",
            "guard_and_constraint",
            "merged",
        ],
        "Locks and conflicts": ["transactions", "predicate_locks", "serializable", "waiting"],
        "Plans and statements": ["departments_plan", "employees_plan", "statements"],
        "Running now": ["connections"],
        "Space and indexes": ["sizes"],
    }
    assert len(re.findall(r'<br><span class="soft">\w.+</span></li>', page)) == len(questions())


def headlines(service: Service) -> dict[str, str]:
    """What the index says of the answers, by question."""
    page = service.http.get("/inspect")
    assert page.status_code == 200
    return dict(re.findall(r'href="/inspect/(\w+)">.*</a>\n<b>(.*)</b>', page.text))


def headlines_of(service: Service, names: set[str]) -> dict[str, str]:
    """Them, when just these are there. A busy machine may not have all of them in time."""
    told: dict[str, str] = {}

    def are_there() -> bool:
        told.clear()
        told.update(headlines(service))
        return told.keys() == names

    until(are_there)
    return told


TOLD = {
    *("departments_duplicates", "employees_duplicates", "guard_and_constraint", "transactions"),
    *("predicate_locks", "serializable", "waiting", "connections"),
}


def test_the_index_tells_what_is_cheap_to_know(service: Service) -> None:
    told = headlines_of(service, TOLD)
    for name in ("departments_duplicates", "employees_duplicates"):
        assert told[name] == f"keys: {rows(service, name)[0]['total']:,}"
    assert told["guard_and_constraint"] == "guard: off"
    assert told["predicate_locks"] == "none"
    assert re.fullmatch(r"remembered: \d+, some forgotten: false", told["serializable"])
    assert told["transactions"] == "deadlocks: 0"
    assert told["waiting"] == "0"
    assert int(told["connections"]) > 8


# Those that any server can answer.
ANSWERED = [each.name for each in questions() if each.name != "statements"]


@pytest.mark.parametrize("name", sorted(ANSWERED))
def test_a_question_is_a_page_a_json_and_a_csv(name: str, service: Service) -> None:
    page = service.http.get(f"/inspect/{name}")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert len(page.content) < PAGE
    json = service.http.get(f"/inspect/{name}.json")
    assert json.status_code == 200
    assert json.headers["content-type"] == "application/json"
    answer = json.json()
    assert list(answer) == [
        "name", "title", "sql", "parameters", "at", "milliseconds", "cut", "rows"
    ]  # fmt: skip
    assert answer["title"] in page.text.replace("&#39;", "'")
    comma = service.http.get(f"/inspect/{name}.csv")
    assert comma.status_code == 200
    assert comma.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    header, *lines = csv.reader(io.StringIO(comma.text))
    assert all(list(row) == header for row in answer["rows"])
    assert all(len(line) == len(header) for line in lines)
    assert answer["sql"].split("\n", 1)[0] in page.text.replace("&#39;", "'")
    if not name.endswith("_plan"):  # whose page first asks for a key
        assert all(f'<th scope="col">{column}</th>' in page.text for column in header)


@pytest.mark.parametrize(
    "path", ["/inspect", "/inspect/departments_duplicates", "/inspect/traffic.json"]
)
def test_a_page_may_load_nothing_from_elsewhere(path: str, service: Service) -> None:
    headers = service.http.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-\S+'", policy["script-src"])
    assert re.fullmatch(r"'sha256-\S+'", policy["style-src"])
    assert policy["form-action"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["nope", "nope.json", "merged.xml", "..%2Fread_only", "%00", "traffic.xml", ".json"]
)
def test_an_unknown_question_is_404(path: str, service: Service) -> None:
    answer = service.http.get(f"/inspect/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_page_is_only_read(service: Service) -> None:
    answer = service.post("/inspect/departments_duplicates")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


# A file dropped into the folder of a running service


def test_a_new_file_is_a_page_a_json_and_a_csv(
    drop: Callable[..., httpx.Response], developed: tuple[Service, Path]
) -> None:
    question = b"-- A new question\nSELECT 1 AS one, 'a,b' AS text, NULL AS nothing;\n"
    assert drop(question).json()["rows"] == [{"one": 1, "text": "a,b", "nothing": None}]
    assert drop(question, ".csv").text == 'one,text,nothing\r\n1,"a,b",\r\n'
    page = drop(question, "").text
    assert "<h1>A new question</h1>" in page
    assert '<td class=n>1</td><td>a,b</td><td class="null">NULL</td>' in page
    assert '<a href="/inspect/dropped.csv">CSV</a>' in page
    assert "A new question" in developed[0].http.get("/inspect").text
    changed = drop(b"-- Asked otherwise\nSELECT 2 AS one;")
    assert (changed.json()["title"], changed.json()["rows"]) == ("Asked otherwise", [{"one": 2}])


# What the index says of an answer, by the headline and the statement; None where it says nothing.
HEADLINES = {
    ("{rows} of {n}", "SELECT n FROM generate_series(1, 3) AS n"): "3 of 6",
    ("{text}", "SELECT text FROM unnest(ARRAY['b', 'a', 'b', NULL]) AS text"): "a, b",
    ("{n}, {nope}", "SELECT NULL::bigint AS n"): "none, {nope}",
    ("{rows}", "SELECT 1 AS n WHERE false"): "0",
    ("<i>{text}", "SELECT '<i>' AS text"): "&lt;i&gt;&lt;i&gt;",
    # so many that they are still sent when there are enough
    ("{rows}", "SELECT n FROM generate_series(1, 200000) AS n"): f"over {ROW_LIMIT:,}",
    # too dear, for the planner; none of these rows would be needed
    ("{rows}", "SELECT generate_series(1, 1000000000) AS n"): None,
    ("{rows}", "SELECT pg_sleep(3600)::text AS slept"): None,
    ("{rows}", "SELECT 1 / n AS n FROM generate_series(0, 3) AS n"): None,
    ("{rows}", "SELECT n FROM no_such_table"): None,
    ("{rows}", "INSERT INTO departments (name) VALUES ('made by a page') RETURNING id"): None,
    ("{rows}", "COMMIT"): None,
    ("{rows}", "SELECT 1 AS one; SELECT 2 AS two"): None,
    ("{rows}", "SELECT 1 AS one, 2 AS one"): None,
}


@pytest.mark.long
@pytest.mark.parametrize("question", HEADLINES, ids=lambda question: question[1])
def test_a_headline_is_told_or_left_out(
    question: tuple[str, str],
    drop: Callable[..., httpx.Response],
    developed: tuple[Service, Path],
) -> None:
    service, _ = developed
    headline, statement = question
    drop(f"-- headline {headline}\n{statement};".encode())
    # The others are asked after it.
    expected = HEADLINES[question]
    told = headlines_of(service, TOLD if expected is None else TOLD | {"dropped"})
    assert told.get("dropped") == expected
    assert service.sql("SELECT FROM departments") == []


def test_the_index_does_not_wait_for_a_locked_table(new_database: Callable[[], str]) -> None:
    database = new_database()
    with (
        serving(DATABASE_URL=database, RETRY_DEADLINE="60") as service,
        psycopg.connect(database) as holder,
    ):
        holder.execute("LOCK TABLE departments")
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(service.post, "/departments", name="Research")
            until(lambda: headlines(service).get("waiting") == "1")
            told = headlines_of(service, TOLD - {"departments_duplicates"})
            holder.rollback()
            assert stuck.result().status_code == 201
    assert told["waiting"] == "1"


KINDS = {
    # an expression: how JSON has it, and how CSV and psql do
    "12345678901234567890.50": ("12345678901234567890.50", "12345678901234567890.50"),
    "'NaN'::numeric": ('"NaN"', "NaN"),
    "'-Infinity'::float8": ('"-Infinity"', "-Infinity"),
    "1e-300::float8": ("1e-300", "1e-300"),
    "9223372036854775807": ("9223372036854775807", "9223372036854775807"),
    "true": ("true", "true"),
    "NULL::bigint": ("null", ""),
    """'{"a": [1e400]}'::json""": ('{"a": [1e400]}', '{"a": [1e400]}'),
    "(repeat('[', 3000) || repeat(']', 3000))::jsonb": ("[" * 3000 + "]" * 3000,) * 2,
    "'infinity'::timestamptz": ('"infinity"', "infinity"),
    "'4713-01-01 BC'::date": ('"4713-01-01 BC"', "4713-01-01 BC"),
    "'24:00'::time": ('"24:00:00"', "24:00:00"),
    "interval '1 month'": ('"1 mon"', "1 mon"),
    "ARRAY['x', NULL]": ('"{x,NULL}"', "{x,NULL}"),
    "ARRAY[now(), NULL] IS NULL": ("false", "false"),
    "'pg_class'::regclass": ('"pg_class"', "pg_class"),
    "'1.2.3.4'::inet": ('"1.2.3.4"', "1.2.3.4"),
    "'\\x00ff'::bytea": ('"\\\\x00ff"', "\\x00ff"),
    "int8range(1, 5)": ('"[1,5)"', "[1,5)"),
    "ROW(1, 'a')": ('"(1,a)"', "(1,a)"),
    "'07cc67f4-45d6-494b-adac-09b5cbc7e2b5'::uuid": (
        '"07cc67f4-45d6-494b-adac-09b5cbc7e2b5"',
        "07cc67f4-45d6-494b-adac-09b5cbc7e2b5",
    ),
}


@pytest.mark.parametrize("expression", KINDS)
def test_a_value_of_any_type(expression: str, drop: Callable[..., httpx.Response]) -> None:
    json, text = KINDS[expression]
    question = f"SELECT {expression} AS value, 1 AS one".encode()
    assert drop(question).text.endswith(f'"rows":[{{"value":{json},"one":1}}]}}')
    assert list(csv.reader(io.StringIO(drop(question, ".csv").text))) == [
        ["value", "one"],
        [text, "1"],
    ]
    assert drop(question, "").status_code == 200


# What a spreadsheet would run, or might, and how it is in CSV.
RUN = {
    "=1+1": "'=1+1",
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
    "+1": "'+1",
    "-1": "'-1",
    "-1+1": "'-1+1",
    "@SUM(1)": "'@SUM(1)",
    "\t=1": "'\t'=1",
    "\r=1": "'\r'=1",
    "\n=1": "'\n'=1",
    '"=1': "'\"=1",
    "'=1": "''=1",
    "\uff1d1": "'\uff1d1",
    "1=1": "1=1",
    "a@example.org": "a@example.org",
    " - ": " - ",
    "": "",
}


@pytest.mark.parametrize("text", RUN)
def test_a_spreadsheet_runs_no_cell(text: str, drop: Callable[..., httpx.Response]) -> None:
    question = (
        b"-- $1 value text\nSELECT coalesce($1, '') AS text, -5 AS number, '-5.5'::numeric AS n"
    )
    answer = drop(question, ".csv", value=text)
    expected = [["text", "number", "n"], [RUN[text], "-5", "-5.5"]]
    assert list(csv.reader(io.StringIO(answer.text, newline=""))) == expected
    assert drop(question, value=text).json()["rows"][0]["text"] == text


def test_a_spreadsheet_runs_no_heading(drop: Callable[..., httpx.Response]) -> None:
    assert drop(b'SELECT 1 AS "=1+1"', ".csv").text == "'=1+1\r\n1\r\n"


def test_what_is_cut_says_so(drop: Callable[..., httpx.Response]) -> None:
    # Far more than fits in memory or in the time: only what is needed is fetched.
    question = b"-- Many\nSELECT generate_series(1, 1000000000) AS n, repeat('x', 1000) AS text;"
    answer = drop(question).json()
    assert answer["cut"] is True
    assert [row["n"] for row in answer["rows"]] == list(range(1, ROW_LIMIT + 1))
    comma = drop(question, ".csv")
    assert comma.headers["cut-after"] == str(ROW_LIMIT)
    assert comma.text.count("\r\n") == ROW_LIMIT + 1
    page = drop(question, "")
    assert len(page.content) < PAGE
    assert f"of more than {ROW_LIMIT:,} rows (JSON and CSV have {ROW_LIMIT:,})" in page.text
    assert "<button formaction" not in page.text
    assert f"the first {page.text.count('<tr><td')} of" in page.text
    whole = drop(f"-- Just all\nSELECT n FROM generate_series(1, {ROW_LIMIT}) n;".encode())
    assert whole.json()["cut"] is False
    assert len(whole.json()["rows"]) == ROW_LIMIT


def test_an_answer_is_cut_by_its_size_too(drop: Callable[..., httpx.Response]) -> None:
    answer = drop(b"-- Large\nSELECT repeat('x', 1000000) AS text FROM generate_series(1, 900) n;")
    assert answer.json()["cut"] is True
    assert len(answer.json()["rows"]) == SIZE_LIMIT // 1_000_000 - 1


# Each is far over the limit: by a cell, by cells together, by names, by what JSON, CSV or UTF-8
# make of a character, or by what the server says in the place of rows.
WIDE = {
    "a cell": "SELECT repeat('x', {n}) AS text",
    "a cell of what takes four bytes": "SELECT repeat('\U0001f600', {n} / 4) AS text",
    "a cell of what JSON escapes": "SELECT repeat(chr(1), {n}) AS text",
    "a cell of what CSV doubles": "SELECT repeat('\"', {n}) AS text",
    "a row": "SELECT {cells}",
    "a message": "SELECT repeat('x', {n})::int AS n",
    "a row after others": "SELECT repeat('x', CASE n WHEN 9 THEN {n} ELSE 9 END) AS text"
    " FROM generate_series(1, 99) AS n",
    "rows of many names": "SELECT {names} FROM generate_series(1, 900)",
    "rows of nothing": "SELECT {nulls} FROM generate_series(1, 900)",
}


def wide(question: str) -> bytes:
    n = 60_000_000
    cells = ", ".join(f"repeat('x', {n} / 100) AS c{each}" for each in range(100))
    names = ", ".join(f"{each} AS {'n' * 50}{each}" for each in range(300))
    nulls = ", ".join(f"NULL AS {'n' * 20}{each}" for each in range(1_600))
    filled = question.format(n=n, cells=cells, names=names, nulls=nulls)
    return f"-- Wide\n{filled};".encode()


@pytest.mark.long
@pytest.mark.parametrize("kind", WIDE)
def test_no_answer_is_larger_than_the_limit(
    kind: str, drop: Callable[..., httpx.Response], developed: tuple[Service, Path]
) -> None:
    service, _ = developed
    service.connections_break = True  # where a row is too wide
    question = wide(WIDE[kind])
    for suffix in (".json", ".csv", ""):
        answer = drop(question, suffix)
        # Beside the rows there are the names of the columns, and the file.
        assert len(answer.content) < SIZE_LIMIT + 300_000
        if answer.status_code == 200:
            continue
        assert answer.status_code == 501, answer.text[:300]
        assert suffix == "" or len(answer.content) < 1_000
    if kind == "a row after others":
        rows = drop(question).json()
        assert (rows["cut"], len(rows["rows"])) == (True, 8)
        assert drop(question, ".csv").headers["cut-after"] == "8"
    if kind in ("a cell", "a row"):
        assert "over 4,000,000 bytes" in drop(question).json()["detail"]
    # The connection that broke is replaced, and the server's side of it is gone.
    assert drop(b"SELECT 1 AS one").json()["rows"] == [{"one": 1}]
    running = "SELECT FROM pg_stat_activity WHERE query ~ '^-- Wide' AND state = 'active'"
    until(lambda: sql(service.database, running) == [])
    assert "Traceback" not in service.log.read_text()


def test_what_is_just_within_the_limit(drop: Callable[..., httpx.Response]) -> None:
    question = b"SELECT repeat('x', %d) AS text" % (SIZE_LIMIT - 1_000)
    for _ in range(5):
        answer = drop(question).json()
        assert (answer["cut"], len(answer["rows"][0]["text"])) == (False, SIZE_LIMIT - 1_000)


@pytest.mark.long
def test_a_wide_row_takes_no_memory(new_database: Callable[[], str], tmp_path: Path) -> None:
    for name in ("app.py", "db", "sql", "web"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "sql" / "inspect" / "wide.sql").write_bytes(wide(WIDE["a cell"]))
    (tmp_path / "sql" / "inspect" / "cells.sql").write_bytes(wide(WIDE["a row"]))
    (tmp_path / "sql" / "inspect" / "one.sql").write_bytes(b"SELECT 1 AS one")
    database = new_database()
    with serving(sys.executable, str(tmp_path / "app.py"), DATABASE_URL=database) as service:
        service.connections_break = True  # the meter closes one whose answer is too large
        assert service.http.get("/inspect/one.csv").status_code == 200
        before = peak(service)
        for suffix in ("", ".json", ".csv"):
            for name in ("wide", "cells"):
                service.http.get(f"/inspect/{name}{suffix}")
        # A row alone would be 60 MB, and libpq, psycopg and JSON have copies of it.
        assert peak(service) < before + 50_000_000


def peak(service: Service) -> int:
    """The most bytes that the service ever had in memory."""
    status = Path(f"/proc/{service.process.pid}/status")
    if not status.exists():
        pytest.skip("only Linux tells the most memory that another process had")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) * 1024


LARGE = {
    "a long file": b"-- Long\n" + b"-- & \n" * 8_000 + b"SELECT repeat('<', 1000000) AS text;",
    "a long title": b"-- " + b"<title>" * 5_000 + b"\nSELECT 1 AS one;",
    "wide rows": b"SELECT " + b", ".join(b"repeat('&', 5000) AS c%d" % n for n in range(100)),
    "many columns": b"SELECT " + b", ".join(b'1 AS "<%d>"' % n for n in range(1_000)),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_page_stays_small(kind: str, drop: Callable[..., httpx.Response]) -> None:
    page = drop(LARGE[kind], "")
    assert page.status_code == 200
    assert len(page.content) < PAGE
    assert 'href="/inspect/dropped.json"' in page.text
    assert len(drop(LARGE[kind]).json()["rows"]) == 1


def test_a_page_stays_small_whatever_is_typed(service: Service) -> None:
    for text in ("\U0001f600" * 700, '"' * 700):
        answer = service.http.get("/inspect/merged", params={"resource": text})
        assert answer.status_code == 200
        assert len(answer.content) < PAGE


ODD = ["-- <i>title", "SELECT 1 AS \"<i>column\", '<i>cell' AS text -- <i>comment"]


def test_nothing_in_a_file_becomes_markup(
    drop: Callable[..., httpx.Response], developed: tuple[Service, Path]
) -> None:
    page = drop("\n".join(ODD).encode(), "").text
    assert "<i>" not in page
    for text in ("title", "column", "cell", "comment"):
        assert f"&lt;i&gt;{text}" in page
    assert "<i>" not in developed[0].http.get("/inspect").text


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO departments (name) VALUES ('made by a page') RETURNING id",
        "WITH made AS (INSERT INTO departments (name) VALUES ('x') RETURNING id) TABLE made",
        "SELECT nextval('departments_id_seq')",
        "DELETE FROM departments",
        "CREATE TABLE made (id bigint)",
        "COMMIT",
        "SELECT 1 AS one; SELECT 2 AS two",
        "COMMIT; INSERT INTO departments (name) VALUES ('x')",
        "SELEC 1",
        "SELECT 1 AS one, 2 AS one",
        "SELECT",
        "-- nothing else",
        "",
        "SELECT $1::text AS without_a_line_for_it",
        "SELECT no_such_column FROM departments",
        "SELECT 1 / 0 AS n",
        "SELECT pg_terminate_backend(0) / 0 AS n",
        "-- $2 b text\n-- $1 a text\n-- $1 again text\nSELECT $1::text AS a, $2::text AS b",
        "-- $2 b text\nSELECT $1::text AS a",
        "DO $$ BEGIN RAISE unique_violation; END $$",
        "SELECT 1 AS n FROM no_such_table",
        "VACUUM",
    ],
)
def test_what_cannot_be_answered_says_so_and_changes_nothing(
    statement: str, drop: Callable[..., httpx.Response], developed: tuple[Service, Path]
) -> None:
    service, _ = developed
    before = sql(service.database, "SELECT * FROM departments")
    question = f"-- Title\n{statement}".encode()
    for suffix in (".json", ".csv"):
        answer = drop(question, suffix)
        assert answer.status_code == 501, answer.text[:300]
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].startswith("This server cannot answer the question: ")
    page = drop(question, "")
    assert page.status_code == 501
    assert 'role="alert">This server cannot answer the question: ' in page.text
    assert sql(service.database, "SELECT * FROM departments") == before
    assert drop(b"-- Well\nSELECT 1 AS one").json()["rows"] == [{"one": 1}]


def test_a_slow_question_is_ended(
    drop: Callable[..., httpx.Response], developed: tuple[Service, Path]
) -> None:
    service, _ = developed
    answer = drop(b"-- Slow\nSELECT pg_sleep(3600)::text AS slept;")
    assert answer.status_code == 503
    assert "psql" in answer.json()["detail"]
    running = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^-- Slow' AND state = 'active'"
    assert sql(service.database, running) == [(0,)]


def test_a_file_that_is_not_text(drop: Callable[..., httpx.Response]) -> None:
    assert drop(b"-- \xff\xfe\x00 caf\xe9\nSELECT 1 AS one").status_code == 501
    assert drop(b"-- caf\xe9\nSELECT 1 AS one").json()["title"] == "caf\ufffd"
    assert drop(b"SELECT 1 AS one").json()["title"] == "dropped"
    assert drop(b"--\nSELECT 1 AS one").json()["title"] == "dropped"
    assert drop(b"\xef\xbb\xbf-- With a mark\nSELECT 1 AS one").json()["title"] == "With a mark"
    assert drop(b"-- Huge\nSELECT 1 AS one" + b" " * 100_000).status_code == 404


def test_what_is_no_question_is_no_page(
    drop: Callable[..., httpx.Response], developed: tuple[Service, Path]
) -> None:
    service, folder = developed
    pages = re.findall(r'href="([^"]*)', service.http.get("/inspect").text)
    os.mkfifo(folder / "pipe.sql")
    (folder / "folder.sql").mkdir()
    (folder / ".#dangling.sql").symlink_to("nowhere")
    (folder / "dangling.sql").symlink_to("nowhere")
    Path(os.fsdecode(bytes(folder) + b"/\xff\xfe.sql")).write_text("-- Odd\nSELECT 1 AS one;")
    (folder / "with blanks.sql").write_text("-- Blank\nSELECT 1 AS one;")
    (folder / "notes.txt").write_text("-- Notes\nSELECT 1 AS one;")
    assert re.findall(r'href="([^"]*)', service.http.get("/inspect").text) == pages
    for name in ("pipe", "folder", ".%23dangling", "dangling", "with%20blanks", "notes", "%FF%FE"):
        assert service.http.get(f"/inspect/{name}").status_code == 404
    assert drop(b"SELECT 1 AS one").status_code == 200


# Parameters


def test_parameters_are_form_fields(drop: Callable[..., httpx.Response]) -> None:
    question = b"""-- Two
-- $1 department_id bigint
-- $2 name text, any if NULL
SELECT $1::bigint AS department_id, $2::text AS name;
"""
    page = drop(question, "").text
    assert re.findall(r'<input name="(\w+)"', page) == ["department_id", "name"]
    assert re.findall(r"<label>(.*)", page) == ["department_id (bigint)", "name (text)"]
    for name in ("Ada", "'; DROP TABLE employees; --", "$1", "\\", '"', "<b>&amp;</b>", "é €"):
        answer = drop(question, department_id="7", name=name).json()
        assert answer["rows"] == [{"department_id": 7, "name": name}]
        assert answer["parameters"] == {"department_id": "7", "name": name}
        page = drop(question, "", department_id="7", name=name).text
        assert "<b>" not in page
        assert f'value="{escape(name)}"' in page
    assert '<button formaction="/inspect/dropped.json">JSON</button>' in page
    assert '<button formaction="/inspect/dropped.csv">CSV</button>' in page
    assert drop(question).json()["rows"] == [{"department_id": None, "name": None}]
    assert drop(question, name="").json()["rows"] == [{"department_id": None, "name": None}]


def test_parameters_go_by_their_numbers(drop: Callable[..., httpx.Response]) -> None:
    question = b"-- $2 b text\n-- $1 a text\nSELECT $1::text AS one, $2::text AS two"
    assert drop(question, a="A", b="B").json()["rows"] == [{"one": "A", "two": "B"}]


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_an_error_does_not_repeat_a_value(suffix: str, drop: Callable[..., httpx.Response]) -> None:
    for text in ("$1::regclass AS n", "$1::text::bigint AS n", "current_setting($1) AS n"):
        answer = drop(f"-- $1 a text\nSELECT {text}".encode(), suffix, a="secretvalue")
        assert answer.status_code in (422, 501)
        assert "secretvalue" not in answer.text.replace('value="secretvalue"', "")


def test_a_file_cannot_change_the_session_of_the_next(drop: Callable[..., httpx.Response]) -> None:
    changed = b"""-- Changes
    SELECT set_config('statement_timeout', '0', false), pg_advisory_lock(42) IS NULL AS locked"""
    state = b"""-- State
    SELECT current_setting('statement_timeout') AS timeout,
        current_setting('transaction_isolation') AS isolation,
        current_setting('transaction_read_only') AS read_only,
        (SELECT count(*) FROM pg_locks
         WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks"""
    expected = {"timeout": "3s", "isolation": "read committed", "read_only": "on", "locks": 0}
    for _ in range(3):
        assert drop(changed).status_code == 200
        assert drop(state).json()["rows"] == [expected]


@pytest.mark.parametrize(
    ("query", "status", "about"),
    [
        ("department_id=x", 422, "department_id is bigint, name is text"),
        ("department_id=9223372036854775808", 422, "department_id is bigint"),
        ("name=%00", 422, "name is text"),
        (f"name={'x' * 701}", 422, "at most 700 characters"),
        ("department=1", 422, "takes only department_id, name"),
        ("name=a&name=b", 422, "has a parameter twice"),
        ("name=%ff", 400, "not UTF-8"),
        ("name=%ED%A0%80", 400, "not UTF-8"),
    ],
)
def test_a_wrong_value_is_a_clear_error(
    query: str, status: int, about: str, service: Service
) -> None:
    for suffix in (".json", ".csv", ""):
        answer = service.http.get(f"/inspect/employees_plan{suffix}?{query}")
        assert answer.status_code == status
        assert about in answer.text
        if suffix or status == 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert "xxx" not in answer.text


def test_a_name_is_shown_as_text(service: Service) -> None:
    assert (
        "<script>alert(1)</script>" in service.http.get("/inspect/departments_duplicates.csv").text
    )
    page = service.http.get("/inspect/departments_duplicates").text
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    page = service.http.get("/inspect/merged", params={"resource": '"><script>'}).text
    assert "<script>" not in page


# What the questions tell


def test_duplicates(service: Service) -> None:
    worst, *others = rows(service, "departments_duplicates")
    assert worst["resource"] == "departments"
    assert worst["key"] == {"name": "<script>alert(1)</script>"}
    assert worst["copies"] == 9
    for found in (others, rows(service, "employees_duplicates")):
        copies = [row["copies"] for row in found]
        assert copies == sorted(copies, reverse=True)
        assert copies[-1] == 2
    assert {row["resource"] for row in found} == {"employees"}


def test_who_waits_for_whom(service: Service) -> None:
    holder, waiter = (psycopg.connect(service.database) for _ in range(2))
    with holder, waiter, ThreadPoolExecutor(1) as pool:
        holder.execute("SET application_name = 'the holder'")
        waiter.execute("SET application_name = 'the waiter'")
        holder.execute("LOCK TABLE merged")
        done = pool.submit(waiter.execute, "LOCK TABLE merged")
        try:
            until(lambda: rows(service, "waiting") != [])
            (wait,) = rows(service, "waiting")
        finally:
            holder.rollback()
            done.result()
    assert (wait["waiting_application"], wait["holding_application"]) == (
        "the waiter",
        "the holder",
    )
    assert wait["waiting_query"] == "LOCK TABLE merged"
    assert wait["holding_state"] == "idle in transaction"
    assert rows(service, "waiting") == []


def test_predicate_locks(service: Service, database: str) -> None:
    assert rows(service, "predicate_locks") == []  # pages take none
    # The other's table has the same number: databases are made from one template.
    with psycopg.connect(service.database) as reader, psycopg.connect(database) as elsewhere:
        for each in (reader, elsewhere):
            each.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            each.execute("SET LOCAL enable_indexscan = off")
            each.execute("SET LOCAL enable_bitmapscan = off")
            each.execute("SELECT FROM employees")
        (lock,) = (row for row in rows(service, "predicate_locks") if row["kind"] == "relation")
    assert (lock["relation"], lock["locks"], lock["transactions"]) == ("employees", 1, 1)


@pytest.mark.long
def test_serializable_transactions_that_are_forgotten(service: Service, database: str) -> None:
    make_others(database)
    sql(
        database,
        PROCEDURE.replace("others", "writers").replace(
            "PERFORM FROM bystanders WHERE id = 1", "INSERT INTO bystanders VALUES (n)"
        ),
    )
    room = remembered(database)
    (before,) = rows(service, "serializable")
    assert not before["some_are_forgotten"]
    with psycopg.connect(database) as old:
        old.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        old.execute("SELECT FROM bystanders")
        others(database, 10)
        (during,) = rows(service, "serializable")
        assert (during["remembered"], during["some_are_forgotten"]) == (11, False)
        assert during["oldest_seconds"] > 0
        others(database, room)
        (during,) = rows(service, "serializable")
        assert (during["remembered"], during["some_are_forgotten"]) == (room - 1, True)
        sql(database, f"CALL writers({2 * room})")
        least = before["writers_forgotten"] + room
        until(lambda: rows(service, "serializable")[0]["writers_forgotten"] >= least)
    assert rows(service, "serializable")[0]["some_are_forgotten"] is False


def test_transactions(service: Service) -> None:
    (before,) = rows(service, "transactions")
    with psycopg.connect(service.database) as connection:
        connection.execute("SELECT 1")
        connection.rollback()
    until(lambda: rows(service, "transactions")[0]["rollbacks"] > before["rollbacks"])
    (after,) = rows(service, "transactions")
    assert after["commits"] > before["commits"]
    assert (after["deadlocks"], after["conflicts"]) == (0, 0)


@pytest.mark.parametrize(
    ("name", "values", "index"),
    [
        ("departments_plan", {"name": "department 1"}, "departments_lookup"),
        ("employees_plan", {"department_id": 1, "name": "employee 1"}, "employees_lookup"),
    ],
)
def test_a_plan_is_of_the_file_that_the_service_runs(
    name: str, values: dict[str, Any], index: str, service: Service
) -> None:
    answer = service.http.get(f"/inspect/{name}.json", params=values).json()
    file = (ROOT / "sql" / name.removesuffix("_plan") / "select.sql").read_text()
    assert answer["sql"] == f"EXPLAIN (ANALYZE, BUFFERS)\n{file}"
    plan = "\n".join(row["QUERY PLAN"] for row in answer["rows"])
    assert f"Scan on {index}" in plan or f"using {index}" in plan
    assert "Seq Scan" not in plan


def test_connections(service: Service) -> None:
    states = {
        (row["application"], row["state"]): row["connections"]
        for row in rows(service, "connections")
    }
    assert states["onerow", "idle"] == 8
    assert states["onerow inspect", "active"] == 1


def test_sizes(service: Service) -> None:
    sizes = {row["relation"]: row for row in rows(service, "sizes")}
    assert sizes["employees"]["kind"] == "table"
    assert sizes["employees"]["live_rows"] == sizes["employees"]["inserted"] == 5_000
    assert sizes["employees"]["grown_by"] == sizes["employees"]["size"]
    assert sizes["merged"]["grown_by"] is None
    assert sizes["employees_lookup"]["kind"] == "index"
    assert {"departments", "departments_pkey", "employees_department"} < set(sizes)


def test_guard_constraint_and_what_merge_removed(new_database: Callable[[], str]) -> None:
    database = new_database()
    sql(database, "INSERT INTO departments (name) VALUES ('A'), ('A'), ('B')")
    with serving(DATABASE_URL=database) as service:

        def state() -> dict[str, Any]:
            return rows(service, "guard_and_constraint")[0]

        assert state() == {
            "resource": "departments",
            "table_name": "departments",
            "guard": "off",
            "unique_constraint": None,
            "its_index": None,
            "lookup_index": "valid",
        }
        legacy.run(database, "guard", "on")
        assert state()["guard"] == "on"
        sql(database, "ALTER TABLE departments DISABLE TRIGGER departments_guard_insert")
        assert state()["guard"] == "incomplete"
        legacy.run(database, "merge", "--apply")
        (removed,) = rows(service, "merged")
        assert (removed["resource"], removed["id"], removed["kept"]) == ("departments", "2", "1")
        assert removed["content"]["name"] == "A"
        assert rows(service, "merged", resource="departments", id=2) == [removed]
        assert rows(service, "merged", resource="employees") == []
        legacy.run(database, "enforce")
        assert state()["unique_constraint"] == "UNIQUE (name)"
        assert (state()["its_index"], state()["guard"]) == ("valid", "off")


@pytest.mark.long
def test_statements_where_the_extension_is_loaded_and_where_it_is_not(
    service: Service, developed: tuple[Service, Path]
) -> None:
    answer = service.http.get("/inspect/statements")
    assert answer.status_code == 501
    assert "shared_preload_libraries" in answer.text
    answer = developed[0].http.get("/inspect/statements.json")
    assert answer.status_code == 501
    assert "pg_stat_statements" in answer.json()["detail"]
    with temporary_data_dir() as data_dir:
        with embedded_server(data_dir):
            pass
        with (data_dir / "postgresql.conf").open("a") as conf:
            conf.write("shared_preload_libraries = 'pg_stat_statements'\n")
        with serving(DATA_DIR=str(data_dir)) as loaded:
            database = re.findall(r"database (.*), data", loaded.line)[0]
            sql(database, "CREATE EXTENSION pg_stat_statements")
            loaded.post("/departments", name="Research")
            statements = [row["statement"] for row in rows(loaded, "statements")]
            assert any("FROM departments" in statement for statement in statements)
            assert loaded.http.get("/inspect/statements").status_code == 200


# The picture


def sums(service: Service) -> tuple[int, int, int]:
    """What the last minutes came to: created, existing, retried."""
    seconds = rows(service, "traffic")
    assert len(seconds) == 300
    assert [row["second"] for row in seconds] == list(
        range(seconds[0]["second"], seconds[0]["second"] + 300)
    )
    created, existing, retried = (
        sum(row[kind] for row in seconds) for kind in ("created", "existing", "retried")
    )
    return created, existing, retried


@pytest.mark.long
def test_the_picture_counts_what_all_workers_answered(new_database: Callable[[], str]) -> None:
    with serving(DATABASE_URL=new_database(), WORKERS="2") as service:
        assert sums(service) == (0, 0, 0)

        def create(number: int) -> httpx.Response:
            return service.post("/departments", name=f"name {number // 8}")

        with ThreadPoolExecutor(16) as pool:
            answers = [*pool.map(create, range(800)), *collide(service, "twice")]
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(201), statuses.count(200)) == (101, 701)
        attempts = [
            int(each)
            for answer in answers
            for each in re.findall(r"attempts=(\d+)", answer.headers["server-timing"])
        ]
        retries = sum(attempts) - len(answers)
        assert retries > 0
        until(lambda: sums(service) == (101, 701, retries))
        page = service.http.get("/inspect/traffic").text
        assert [int(n) for n in re.findall(r"in all ([\d,]+)", page)] == [101, 701, retries]


def test_the_counts_of_one_second_do_not_stay_in_the_ring(tmp_path: Path) -> None:
    now = 1_000_000.0
    traffic, other = (Traffic(tmp_path, lambda: now) for _ in range(2))
    for second in range(2 * WINDOW):
        now = 1_000_000.0 + second
        traffic.count("created", second)
        other.count("retried")
    now += 1
    expected = [(1_000_000 + second, second, 0, 1) for second in range(WINDOW, 2 * WINDOW)]
    assert traffic.seconds() == other.seconds() == expected
    now += WINDOW
    assert {second[1:] for second in traffic.seconds()} == {(0, 0, 0)}


@pytest.mark.parametrize("trouble", ["gone", "full"])
def test_without_the_shared_folder_a_worker_counts_alone(trouble: str, tmp_path: Path) -> None:
    folder = tmp_path / "gone" / "gone"  # it cannot be made either
    if trouble == "full":
        folder = Path("/dev/full")  # no folder either, but every write to it finds the disk full
    now = 1_000_000.0
    traffic = Traffic(folder, lambda: now)
    traffic.count("existing", 3)
    now += 1
    assert traffic.seconds()[-1] == (1_000_000, 0, 3, 0)


@pytest.mark.long
def test_the_service_outlives_the_folder_of_the_counts(new_database: Callable[[], str]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(DATABASE_URL=new_database(), WORKERS="2", WORKERS_FOLDER=folder) as service,
    ):
        shutil.rmtree(folder)
        for worker in psutil.Process(service.process.pid).children():
            if "spawn_main" in " ".join(worker.cmdline()):
                worker.kill()
        until(lambda: service_answers(service))
        assert service.post("/departments", name="Research").status_code == 201
        assert service.http.get("/inspect/traffic").status_code == 200
        assert 'outcome="created"' in service.http.get("/metrics").text
        Path(folder).mkdir(exist_ok=True)  # which is taken away again at the end


def service_answers(service: Service) -> bool:
    try:
        return service.http.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


# When the service itself is in trouble


def test_a_page_answers_while_the_services_connections_are_stuck(
    new_database: Callable[[], str],
) -> None:
    database = new_database()
    with (
        serving(DATABASE_URL=database, POOL_SIZE="1", RETRY_DEADLINE="60") as service,
        psycopg.connect(database) as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        holder.execute("LOCK TABLE departments")
        stuck = pool.submit(service.post, "/departments", name="Research")
        until(lambda: rows(service, "waiting") != [])
        assert rows(service, "waiting")[0]["waiting_application"] == "onerow"
        assert not stuck.done()
        holder.rollback()
        assert stuck.result().status_code == 201


@pytest.mark.long
def test_without_a_database_a_page_says_so(tmp_path: Path) -> None:
    with serving(DATABASE_URL=f"postgresql://postgres@/postgres?host={tmp_path}") as service:
        page = service.http.get("/inspect/departments_duplicates")
        assert page.status_code == 503
        assert "No database connection could be had" in page.text
        assert headlines(service) == {}
        assert service.http.get("/inspect/traffic").status_code == 200
