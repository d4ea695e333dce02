"""The README's session, run in a real shell, answers as printed; its SQL is that of the files."""

import re
import shutil
import subprocess

import pytest

from db.settings import Settings
from tests import legacy
from tests.service import LIMIT, ROOT, serving, sql

README = (ROOT / "README.md").read_text()

# What differs from run to run.
VARYING = [
    (r"date: .*", "date: DATE"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"content-length: \d+", "content-length: N"),  # a time may end in zeros, which are left out
    (r"dur=[\d.]+", "dur=MS"),
    (r"x-request-id: .*", "x-request-id: ID"),
    # Of a hundred creators it is not always the one that drew the first id who wins.
    (r'"id":\d+,"department_id"', '"id":ID,"department_id"'),
]


def masked(text: str) -> str:
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def session() -> list[tuple[str, str]]:
    """The commands that talk to the service, each with the answer printed below it."""
    section = README.split("\n## A session\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    turns = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), re.MULTILINE)
    return [(command, answer) for command, answer in turns]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the session needs curl")
def test_the_session_answers_as_printed(database: str) -> None:
    turns = session()
    assert len(turns) == 7
    with serving(DATABASE_URL=database) as service:
        script = "".join(f"{command}\necho; echo END\n" for command, _ in turns)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail"],
            input=script.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=LIMIT,
            check=True,
        )
    answers = done.stdout.replace("\r", "").split("END\n")
    assert [masked(answer) for answer in answers] == [*(masked(answer) for _, answer in turns), ""]


def test_the_road_goes_as_printed(database: str) -> None:
    # About the README's tables, a hundred times smaller.
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
    section = README.split("\n## You have duplicates\n")[1].split("```")[1]
    turns = re.findall(
        r"^\$ .venv/bin/python -m db (.*)\n((?:(?!\$ ).*\n)*)", section, re.MULTILINE
    )
    assert len(turns) == 6
    for words, printed in turns:
        _, output, errors = legacy.run(database, *words.split())
        assert errors == ""
        said = iter(digits_masked(output).splitlines())
        for line in digits_masked(printed.replace("...\n", "")).splitlines():
            assert line in said, line  # in this order


def digits_masked(text: str) -> str:
    text = re.sub("(advice role: ).* is a superuser.*:", r"\1is a superuser:", text)
    return re.sub(r" *[\d,.T:Z-]+", " N", text.replace("Bitmap ", ""))


@pytest.mark.parametrize("name", ["select", "insert"])
def test_the_sql_is_that_of_the_files(name: str) -> None:
    lines = (ROOT / f"sql/employees/{name}.sql").read_text().splitlines(keepends=True)
    statement = "".join(line for line in lines if not line.startswith("--"))
    assert f"```sql\n{statement}```" in README


def test_every_variable_is_named() -> None:
    table = README.split("\n## Configuration\n")[1].split("\n## ")[0]
    for field in Settings.__struct_fields__:
        assert field.upper() in table
