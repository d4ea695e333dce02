"""`python app.py --check` tells what is set and what does not fit, and changes nothing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.settings import Settings
from tests.support.documents import section, turns
from tests.support.pgbouncer import PGBOUNCER, pooling
from tests.support.roles import SERVICE, as_role, make_roles
from tests.support.service import LIMIT, ROOT, environment, sql, temporary_data_dir

SECRET = "hunter2"


def check(**settings: str) -> tuple[int, list[str]]:
    """Run it, and return its exit status and its lines."""
    done = subprocess.run(
        [sys.executable, "app.py", "--check"],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stderr == ""
    assert SECRET not in done.stdout
    lines = done.stdout.splitlines()
    assert all(re.match(r"(ok    |advice|FAIL  ) \S+: .", line) for line in lines), done.stdout
    assert done.returncode == any(line.startswith("FAIL") for line in lines)
    return done.returncode, lines


def failures(lines: list[str]) -> list[str]:
    return [line.removeprefix("FAIL   ") for line in lines if line.startswith("FAIL")]


# The reader of the output


@pytest.mark.parametrize("words", [("app.py", "--check"), ("-m", "db", "roles")])
def test_an_output_that_nobody_takes_is_no_defect(words: tuple[str, ...]) -> None:
    reader, closed = os.pipe()
    os.close(reader)  # as `head` does when it has its lines
    full = os.open("/dev/full", os.O_WRONLY)
    said = {closed: "", full: "the output cannot be written: No space left on device\n"}
    for output, message in said.items():
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment(),
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT,
        )
        os.close(output)
        assert (done.returncode, done.stderr) == (1, message)


# What fits


def test_all_fits_as_printed(database: str) -> None:
    make_roles(database)
    ((command, printed),) = turns(section("docs/operating.md#before-a-start"))
    assert shlex.split(command)[1:] == ["app.py", "--check"]
    status, lines = check(
        DATABASE_URL=as_role(database, SERVICE), PORT="8080", API_TOKEN=f"{SECRET}-token"
    )
    assert status == 0
    said = iter([masked(line) for line in lines])
    for line in printed.replace("...\n", "").splitlines():
        assert masked(line) in said, line  # in this order
    assert [line.split(":")[0] for line in lines[-3:]] == [
        "ok     requests",
        "ok     departments",
        "ok     employees",
    ]


def masked(line: str) -> str:
    """Return a line without where the test's database is."""
    return re.sub(r"(?<=: )user=onerow_service [^()]*(?= |$)", "WHERE", line).rstrip()


def test_each_setting_has_a_line(database: str) -> None:
    names = [name.upper() for name in Settings.__struct_fields__]
    told = check(DATABASE_URL=database)[1]
    assert [line[7:].split(":")[0] for line in told[: len(names)]] == names
    origins = {line[7:].split(":")[0]: line.rpartition(" ")[2] for line in told[: len(names)]}
    assert origins.pop("DATABASE_URL") == "(environment)"
    assert origins.pop("ENGINE") == "(discovered)"
    assert set(origins.values()) == {"(default)"}


@pytest.mark.long
def test_an_empty_variable_is_the_default(database: str) -> None:
    status, lines = check(DATABASE_URL=database, WORKERS="", POOL_SIZE="4", ENGINE="postgresql")
    assert status == 0
    assert "ok     WORKERS: 1 (default)" in lines
    assert "ok     POOL_SIZE: 4 (environment)" in lines
    assert "ok     ENGINE: postgresql (environment)" in lines


def test_it_follows_the_variables_of_libpq(database: str) -> None:
    given = conninfo_to_dict(database)
    variables = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    settings = {name: str(given[key]) for key, name in variables.items() if key in given}
    status, lines = check(DATABASE_URL="postgresql://", **settings)
    assert status == 0
    assert "ok     DATABASE_URL: as PG* variables say (environment)" in lines
    (line,) = [line for line in lines if line.startswith("ok     database: ")]
    assert f"dbname={given['dbname']}" in line


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
@pytest.mark.long
def test_behind_a_pooler_it_asks_what_the_service_asks(database: str) -> None:
    with pooling(database, ignore_startup_parameters="options") as pooler:
        status, lines = check(DATABASE_URL=pooler.url, POOLER="1")
        assert status == 0
        assert lines[-1] == "ok     requests: a POST would be served"
        assert failures(check(DATABASE_URL=pooler.url)[1]) == [
            "requests: The session lacks its settings: behind a pooler the service needs POOLER=1."
        ]
        # What one client sets for its session, the next one would have.
        with psycopg.connect(pooler.url) as connection:
            (told,) = connection.execute("SELECT current_setting('enable_seqscan')").fetchall()
        assert told == ("on",)


def test_nothing_is_changed(database: str) -> None:
    assert check(DATABASE_URL=database)[0] == 0
    # A sequence keeps what was drawn in a transaction that was rolled back.
    drawn = "SELECT count(*) FROM pg_sequences WHERE last_value IS NOT NULL"
    assert sql(database, drawn) == [(0,)]
    assert sql(database, "SELECT count(*) FROM departments") == [(0,)]


# What is not told


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"PORT": SECRET},  # then the others are not held against each other
        {"DATABASE_URL": f"postgresql://user:not@{SECRET}@localhost/x", "PORT": "http"},
        {"DATABASE_URL": f"postgresql://user:not/{SECRET}@localhost/x", "PORT": "http"},
        {"DATABASE_URL": f"postgresql://postgres:{SECRET}@127.0.0.1:1/postgres"},
        {"DATABASE_URL": f"host=127.0.0.1 port=1 password='{SECRET}' user=postgres"},
    ],
    ids=str,
)
def test_no_secret_is_told(more: dict[str, str], database: str) -> None:
    url = make_conninfo(database, password=SECRET, sslpassword=SECRET, oauth_client_secret=SECRET)
    settings = {
        "DATABASE_URL": url,
        "PGPASSWORD": SECRET,
        "API_TOKEN": f"{SECRET}-0123456789,{SECRET}-9876543210",
    }
    status, lines = check(**settings | more)  # which looks for it in every line
    assert status == (1 if more else 0)
    assert "ok     API_TOKEN: 2 of them, not shown (environment)" in lines


# What does not fit


def test_each_setting_that_is_wrong_fails() -> None:
    status, lines = check(PORT="http", WORKERS="0", DATABASE_URL="mysql://x", LOG_FORMAT="xml")
    assert status == 1
    assert [line.split(":")[0] for line in failures(lines)] == [
        "DATABASE_URL",
        "PORT",
        "WORKERS",
        "LOG_FORMAT",
    ]
    assert "ok     HOST: 127.0.0.1 (default)" in lines
    assert "ok     resources: departments, employees in sql" in lines
    assert lines[-1] == "advice database: not looked at, for a setting is wrong"


@pytest.mark.long
def test_settings_that_do_not_go_together_fail() -> None:
    assert failures(check(HOST="0.0.0.0")[1]) == [
        "HOST: 0.0.0.0 opens the service to others without a token: set API_TOKEN, or"
        " ALLOW_ANONYMOUS=1 if that is meant"
    ]


@pytest.mark.long
def test_another_engine_fails(database: str) -> None:
    lines = check(DATABASE_URL=database, ENGINE="cockroachdb")[1]
    assert failures(lines) == ["ENGINE: the server is another, postgresql"]


def test_a_header_that_is_wrong_fails(database: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sql" / "departments", tmp_path / "departments")
    file = tmp_path / "departments" / "list.sql"
    file.write_text(file.read_text().replace("-- $2 limit bigint", "-- $2 limit"))
    lines = check(DATABASE_URL=database, RESOURCES=str(tmp_path))[1]
    (said,) = failures(lines)
    assert re.match(rf"resources: {file}:\d+: must be `-- \$1 name type`", said)
    assert lines[-1].startswith("ok     database: ")


def test_a_folder_that_is_not_there_fails(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    lines = check(DATABASE_URL=database, RESOURCES=str(folder))[1]
    assert failures(lines) == [f"resources: RESOURCES={folder}: No such file or directory"]


def test_tables_that_are_missing_fail(server: str) -> None:
    sql(server, "CREATE DATABASE onerow_test_empty")
    lines = check(DATABASE_URL=make_conninfo(server, dbname="onerow_test_empty"))[1]
    said = failures(lines)
    assert said[0].startswith("requests: The tables, or rights on them, are missing: run `python")
    assert {line.split(":")[0] for line in said[1:]} == {"departments", "employees"}


@pytest.mark.long
def test_a_header_that_the_table_does_not_keep_to_fails(database: str) -> None:
    sql(database, "ALTER TABLE departments RENAME created_at TO made_at")
    told = failures(check(DATABASE_URL=database)[1])
    assert 'departments: sql/departments/get.sql: column "created_at" does not exist' in told


@pytest.mark.long
def test_a_right_that_is_missing_fails(database: str) -> None:
    make_roles(database)
    sql(database, f"REVOKE DELETE ON departments FROM {SERVICE}")
    told = failures(check(DATABASE_URL=as_role(database, SERVICE))[1])
    assert told == ["departments: the role lacks DELETE"]


def test_an_index_that_is_missing_is_told(database: str) -> None:
    sql(database, "DROP INDEX departments_lookup")
    status, lines = check(DATABASE_URL=database)
    assert status == 0
    (advice,) = [line for line in lines if line.startswith("advice requests: ")]
    assert "Without departments_lookup all creators of departments conflict" in advice


@pytest.mark.long
def test_a_database_that_takes_no_writes_fails(database: str) -> None:
    name = conninfo_to_dict(database)["dbname"]
    sql(database, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    (said,) = failures(check(DATABASE_URL=database)[1])
    assert said.startswith("database: ")
    assert said.endswith("session is read-only")


@pytest.mark.long
def test_hosts_that_do_not_answer_fail_on_one_line() -> None:
    url = "postgresql://postgres@127.0.0.1:1,127.0.0.1:2/postgres"
    (said,) = failures(check(DATABASE_URL=url)[1])
    assert "port 1 failed: Connection refused" in said
    assert "port 2 failed: Connection refused" in said


# Without DATABASE_URL


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


def test_the_embedded_server_is_not_started(data_dir: Path) -> None:
    status, lines = check(DATA_DIR=str(data_dir))
    assert status == 0
    assert "ok     DATABASE_URL: unset (default)" in lines
    assert lines[-1] == (
        "advice database: not looked at: without DATABASE_URL `python app.py` starts the embedded"
        f" server, with its data in {data_dir}"
    )
    assert not data_dir.exists()


def test_a_directory_that_is_a_file_fails(data_dir: Path) -> None:
    data_dir.touch()
    told = failures(check(DATA_DIR=str(data_dir))[1])
    assert told == [f"database: DATA_DIR='{data_dir}' is a file, not a folder: choose another"]


@pytest.mark.long
def test_data_of_another_version_fails(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "PG_VERSION").write_text("9\n")
    (said,) = failures(check(DATA_DIR=str(data_dir))[1])
    assert said.startswith(f"database: DATA_DIR='{data_dir}' has the data of PostgreSQL 9")
    assert [each.name for each in data_dir.iterdir()] == ["PG_VERSION"]
