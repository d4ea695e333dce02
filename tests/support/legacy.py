"""Fills databases with duplicates, and runs the commands that clean them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from unittest.mock import patch

import pytest

import db.way_out.merge
import db.way_out.undo
from db.__main__ import main
from db.header import File
from db.queries import QUERIES
from db.resources import RESOURCES, Resource
from db.signals import SIGNALS
from db.way_out import duplicates, enforce, guard, references
from tests.support.service import ROOT, environment, sql

# The share of surplus rows among the departments, and among the employees. More employees become
# duplicates when their departments, which are two rows of one name, are merged.
SURPLUS = 0.2


def fill(database: str, employees: int, departments: int = 500) -> None:
    """Fill the tables as a get_or_create helper without a constraint would have."""
    names = round(departments * (1 - SURPLUS))
    keys = round(employees * (1 - SURPLUS))
    sql(
        database,
        "INSERT INTO departments (name) SELECT 'department ' || n %% %s"
        " FROM generate_series(0, %s - 1) AS n",
        names,
        departments,
    )
    sql(
        database,
        "INSERT INTO employees (department_id, name)"
        " SELECT n %% %s %% %s + 1, 'employee ' || n %% %s / %s"
        " FROM generate_series(0, %s - 1) AS n",
        keys,
        departments,
        keys,
        departments,
        employees,
    )
    sql(database, "VACUUM ANALYZE")


@contextmanager
def start(
    database: str, *words: str, stderr: int = subprocess.PIPE, **settings: str
) -> Iterator[subprocess.Popen[str]]:
    """Start `python -m db` with these words; wait for its end, or end it if the block fails."""
    with subprocess.Popen(
        [sys.executable, "-m", "db", *words],
        cwd=ROOT,
        env=environment(DATABASE_URL=database, **settings),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def run(database: str, *words: str, **settings: str) -> tuple[int, str, str]:
    """Run `python -m db` with these words; return its exit status, output and error output.

    It runs in this process, which is faster, unless RESOURCES says what only a new one reads, or
    an event loop runs, beside which a command could not run its own.
    """
    if "RESOURCES" in settings or "RESOURCES" in os.environ or _a_loop_runs():
        with start(database, *words, stderr=subprocess.PIPE, **settings) as process:
            output, errors = process.communicate()
        status = process.returncode
    else:
        status, output, errors = _main(words, environment(DATABASE_URL=database, **settings))
    assert "Traceback" not in errors, errors
    return status, output, errors


def _a_loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _main(words: Sequence[str], variables: dict[str, str]) -> tuple[int, str, str]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    output, errors = StringIO(), StringIO()
    with (
        patch.dict(os.environ, variables, clear=True),
        patch.object(sys, "argv", ["python -m db", *words]),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if isinstance(code, str):  # as the interpreter does at its end
        errors.write(f"{code}\n")
        code = 1
    assert isinstance(code, int)
    return code, output.getvalue(), errors.getvalue()


def mislead_about_merged(database: str, resource: str) -> None:
    """Let the statistics of merged know the rows of this resource, and of no other.

    PostgreSQL then takes the rows of every other one for few, as it does during its first merge.
    """
    sql(
        database,
        "INSERT INTO merged (resource, id, kept, content, pointed)"
        " SELECT %s, n, n + 1000, '{}', '{}' FROM generate_series(1, 1000) AS n",
        resource,
    )
    sql(database, "ANALYZE merged")


def duplicated(database: str, resource: str) -> int:
    """Return how many rows are surplus."""
    key = {"departments": "name", "employees": "department_id, name"}[resource]
    rows = sql(database, f"SELECT count(*) - count(DISTINCT ({key})) FROM {resource}")
    return int(rows[0][0])


def everything(database: str) -> list[tuple[object, ...]]:
    """Return all rows of both tables."""
    departments = sql(database, "SELECT id, name, NULL, created_at FROM departments ORDER BY id")
    return departments + sql(
        database, "SELECT id, name, department_id, created_at FROM employees ORDER BY id"
    )


def teach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give merge the files for badges.holder, as docs/duplicates.md says."""
    files = dict(RESOURCES["employees"].files)
    for name in ("repoint", "left", "repoint_back"):
        file = RESOURCES["departments"].files[f"employees.department_id/{name}"]
        taught = file.text.replace("employees", "badges").replace("department_id", "holder")
        files[f"badges.holder/{name}"] = File(file.path, taught)
    serve(monkeypatch, {**RESOURCES, "employees": Resource("employees", files)})


def serve(monkeypatch: pytest.MonkeyPatch, resources: dict[str, Resource]) -> None:
    """Let the commands, run in this process, know these resources and no others."""
    for resource in resources.values():
        for name, file in resource.files.items():
            monkeypatch.setitem(QUERIES, f"{resource.name}/{name}", file.text.encode())
    for module in (duplicates, enforce, guard, db.way_out.merge, db.way_out.undo, references):
        monkeypatch.setattr(module, "RESOURCES", resources, raising=False)
