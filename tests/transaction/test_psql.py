"""psql runs the SQL files as they stand, and `make psql` opens one where that can be typed."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from db.programs import BIN
from db.roles import roles
from tests.support.roles import make_superuser
from tests.support.service import LIMIT, ROOT, environment, sql, temporary_data_dir, until

FILES = [path.relative_to(ROOT) for path in sorted((ROOT / "sql").rglob("*.sql"))]

# Any file can be run with these values, which go by the parameter's name or else its type.
VALUES = {
    "resource": "employees",
    "before": "{NULL}",  # JSON as text
    "oid": "1259",  # that of pg_class
    "bigint": "1",
    "boolean": "true",
    "text": "1",  # also fits an id of another type
    "text[]": "{1}",
    "names": "{text}",  # PostgreSQL 15 looks for a type by no other text than a type's name
    "bigint[]": "{1}",
    "jsonb": "{}",
}

# A file of this name can be run only after these statements.
GUARD = r"""\i sql/{0}/guard_locks.sql
\i sql/{0}/guard.sql
"""
NO_INDEX = "DROP INDEX IF EXISTS {0}_key;\n"
BEFORE = {
    "guard_insert": GUARD,
    "guard_update": GUARD,
    "guard_always": rf"""{GUARD}\i sql/{{0}}/guard_insert.sql
\i sql/{{0}}/guard_update.sql
""",
    "index": NO_INDEX,
    "constraint": NO_INDEX + "CREATE UNIQUE INDEX {0}_key ON {0} (id);\n",
    "lookup": "DROP INDEX {0}_lookup;\n",
}


@pytest.fixture(scope="module")
def filled(new_database: Callable[[], str]) -> str:
    database = new_database()
    sql(database, "CREATE EXTENSION pg_stat_statements")
    sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    sql(database, "INSERT INTO employees (department_id, name) VALUES (1, 'Ada')")
    return database


@pytest.mark.parametrize("file", FILES, ids=str)
def test_psql_runs_the_file(file: Path, filled: str) -> None:
    text = (ROOT / file).read_text()
    values = [
        VALUES[name if name in VALUES else type_]
        for name, type_ in re.findall(r"^-- \$\d+ (\w+) ([^\s,]+)", text, re.MULTILINE)
    ]
    bind = f"\\bind {' '.join(values)} " if values else ""
    before = BEFORE.get(file.stem, "") if file.parent.name in ("departments", "employees") else ""
    before = before.format(file.parent.name)
    if file.stem == "roles":
        # `python -m db roles` puts these lines before the file.
        before = "".join(roles().splitlines(keepends=True)[:2])
    script = f"{before}{bind}\\i {file}\n"
    if not re.search(r"^(CREATE|DROP)\b.* CONCURRENTLY", text, re.MULTILINE):
        script = f"BEGIN;\n{script}ROLLBACK;\n"
    done = subprocess.run(
        [BIN / "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", filled],
        input=script,
        cwd=ROOT,
        env=environment(PGOPTIONS="-c client_min_messages=warning"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if file.stem == "statements":
        assert "must be loaded via" in done.stderr  # the extension needs a setting of the server
    else:
        assert done.stderr == ""
        assert done.returncode == 0


def test_make_psql_opens_psql_on_the_same_database(filled: str) -> None:
    done = subprocess.run(
        ["make", "psql"],
        input="\\bind 1 Ada \\i sql/employees/select.sql\n"
        "\\i sql/inspect/guard_and_constraint.sql\n"
        "\\bind 'Grace'\n\\i sql/departments/select.sql\n",
        cwd=ROOT,
        env=environment(DATABASE_URL=filled, PAGER=""),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert r"\i sql/inspect/guard_and_constraint.sql" in done.stdout
    assert r"\bind" in done.stdout
    answers = re.findall(r"^\((\d) rows?\)", done.stdout, re.MULTILINE)
    assert answers == ["1", "2", "0"]


@pytest.mark.long
def test_psql_on_the_embedded_server_has_the_tables() -> None:
    with temporary_data_dir() as data_dir:
        done = subprocess.run(
            [sys.executable, "-m", "db", "psql"],
            input="TABLE merged;\n",
            cwd=ROOT,
            env=environment(DATA_DIR=str(data_dir)),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert "(0 rows)" in done.stdout
        assert done.stderr == ""
        assert not (data_dir / "postmaster.pid").exists()


def test_others_do_not_see_the_password(filled: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "db", "psql"],
        input="\\! tr '\\0' ' ' </proc/$PPID/cmdline; echo the password is $PGPASSWORD\n",
        cwd=ROOT,
        env=environment(DATABASE_URL=make_superuser(filled, "onerow_test_psql", "hunter2")),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert "the password is hunter2" in done.stdout
    assert done.stdout.count("hunter2") == 1


# Only a terminal turns Ctrl-C into a signal, which all programs in it get.
IN_A_TERMINAL = "import pty, sys; pty.spawn([sys.executable, '-m', 'db', 'psql'])"


def test_ctrl_c_cancels_a_query_and_psql_goes_on(filled: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL],
        cwd=ROOT,
        env=environment(DATABASE_URL=make_conninfo(filled, application_name="typing"), PAGER=""),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as terminal:
        assert terminal.stdin is not None
        terminal.stdin.write(b"SELECT pg_sleep(3600);\n")
        terminal.stdin.flush()
        sleeping = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'typing' AND wait_event = 'PgSleep'"
        )
        until(lambda: sql(filled, sleeping) == [(1,)])
        terminal.stdin.write(b"\x03")
        terminal.stdin.flush()
        until(lambda: sql(filled, sleeping) == [(0,)])
        output, _ = terminal.communicate(b"SELECT 6 * 7 AS answer;\n\\q\n", LIMIT)
    assert b"canceling statement due to user request" in output
    assert b"42" in output
