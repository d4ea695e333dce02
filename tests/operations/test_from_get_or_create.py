"""The helper of docs/from-get-or-create.md makes a second row, and the ten lines do not."""

import json
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.documents import blocks, section
from tests.support.service import LIMIT, ROOT, environment, serving, sql

PYTHON = ROOT / "tests" / "bench" / ".venv" / "bin" / "python"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="no Flask and Django: make tests/bench/.venv/installed"
)

(APP,) = blocks(section("docs/from-get-or-create.md#the-helper-today"), "python")
TEN_LINES = blocks(section("docs/from-get-or-create.md#the-ten-lines"), "python")

# Between the helper's select and its insert, another application creates a row.
LEAK = """
from sqlalchemy import create_engine, event

others = create_engine(os.environ["DATABASE_URL"], isolation_level="SERIALIZABLE")
levels = []

@event.listens_for(db.session, "before_flush")
def another_creates(*_):
    levels.append(db.session.scalar(text("SHOW transaction_isolation")))
    with others.begin() as other:
        other.execute(text("SELECT FROM employees WHERE name = 'Ada'"))
        name = "Grace" if len(levels) == 1 else "Ada"
        insert = "INSERT INTO employees (department_id, name) VALUES (1, :name)"
        other.execute(text(insert), {"name": name})

answer = app.test_client().post("/hire", json={"department_id": 1, "name": "Ada"})
print(json.dumps([answer.status_code, levels]))
"""

# Sixteen clients create one key at once.
RACE = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

ready = Barrier(16)

def hire(_):
    ready.wait()
    return app.test_client().post("/hire", json={"department_id": 1, "name": "Ada"})

with ThreadPoolExecutor(16) as threads:
    answers = list(threads.map(hire, range(16)))
print(json.dumps([[each.status_code, each.json["id"]] for each in answers]))
"""

DJANGO = """
import django
from django.conf import settings
from django.db import models

name = os.environ["PGDATABASE"]
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": name}},
    USE_TZ=True,
)
django.setup()

class Employee(models.Model):
    department_id = models.BigIntegerField()
    name = models.TextField()

    class Meta:
        app_label = "staff"
        db_table = "employees"
        managed = False

answers = [get_or_create(Employee, department_id=1, name="Ada") for _ in range(2)]
print(json.dumps([[row.id, row.name, created] for row, created in answers]))
"""


def run(script: str, database: str, tmp_path: Path, **settings: str) -> object:
    """Run a script with the framework; return what it prints, which is JSON."""
    given = {name: str(value) for name, value in conninfo_to_dict(database).items()}
    name, user = given.pop("dbname"), given.pop("user")
    url = f"postgresql://{user}@/{name}?{urlencode(given)}"
    file = tmp_path / "application.py"
    file.write_text(script)
    done = subprocess.run(
        [PYTHON, file],
        cwd=tmp_path,
        # The frameworks have warnings of their own, so that those are ignored here.
        env={
            **environment(DATABASE_URL=url, **settings),
            "PYTHONWARNINGS": "ignore",
            "PGDATABASE": name,
            "PGUSER": user,
            **{f"PG{key.upper()}": value for key, value in given.items()},
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def employees(database: str, name: str) -> int:
    return int(sql(database, "SELECT count(*) FROM employees WHERE name = %s", name)[0][0])


@pytest.fixture
def staffed(database: str) -> str:
    """A database with one department, whose id is 1."""
    sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    return database


def test_helper_leaks(staffed: str, tmp_path: Path) -> None:
    told = run(f"import json\n{APP}{LEAK}", staffed, tmp_path)
    assert told == [201, ["serializable", "read committed"]]
    assert employees(staffed, "Ada") == 2


def test_ten_lines_hold(staffed: str, tmp_path: Path) -> None:
    assert TEN_LINES[0].count("\n") - TEN_LINES[0].index("def ") < 10
    with serving(DATABASE_URL=staffed) as service:
        told = run(APP + TEN_LINES[0] + RACE, staffed, tmp_path, ONEROW=service.url)
    assert isinstance(told, list)
    assert sorted(status for status, _ in told) == [200] * 15 + [201]
    assert len({id_ for _, id_ in told}) == 1
    assert employees(staffed, "Ada") == 1


@pytest.mark.long
def test_ten_lines_hold_in_django(staffed: str, tmp_path: Path) -> None:
    with serving(DATABASE_URL=staffed) as service:
        told = run(TEN_LINES[1] + DJANGO, staffed, tmp_path, ONEROW=service.url)
    assert told == [[1, "Ada", True], [1, "Ada", False]]
