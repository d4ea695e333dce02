"""`make fuzz` lets schemathesis draw requests from /openapi.json and hold the answers against it.

There are two rounds, without and with a token, on tables with legacy duplicates and rows that a
merge retired. FUZZ_SECONDS bounds each round; FUZZ_SEED draws the same again; arguments go to
schemathesis.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

from psycopg.conninfo import make_conninfo

from db.embedded import embedded_server
from db.schema import apply_schema
from db.signals import unwind_on_signals
from tests.support import legacy
from tests.support.service import serving, sql, temporary_data_dir

# schemathesis runs here, where it finds schemathesis.toml, which names hooks.py.
FOLDER = Path(__file__).parent
SCHEMATHESIS = FOLDER / ".venv" / "bin" / "schemathesis"

# In so many seconds every operation gets a hundred requests, and most get several hundred.
SECONDS = "35"

TOKEN = "a-token"


def main() -> int:
    """Return the exit status: 0 only if both rounds found nothing."""
    unwind_on_signals()
    seconds = os.environ.get("FUZZ_SECONDS") or SECONDS
    seed = os.environ.get("FUZZ_SEED") or str(random.getrandbits(32))
    options = [f"--max-time={seconds}", f"--seed={seed}", *sys.argv[1:]]
    clean = True
    with temporary_data_dir() as data_dir, embedded_server(data_dir) as url:
        for token in ("", TOKEN):
            print(f"FUZZ_SEED={seed}, {'with a' if token else 'without'} token", flush=True)
            database = prepared(url, "with_token" if token else "without_token")
            clean = fuzz(database, token, options) and clean
    return 0 if clean else 1


def prepared(server: str, name: str) -> str:
    """Make a database in which the most frequent requests meet duplicates and redirects."""
    sql(server, f"CREATE DATABASE {name}")
    database = make_conninfo(server, dbname=name)
    apply_schema(database)
    # schemathesis often draws the smallest ids, and the names of the document's examples.
    sql(database, "INSERT INTO departments (name) SELECT 'Retired' FROM generate_series(1, 3)")
    legacy.fill(database, employees=500, departments=100)
    status, _, errors = legacy.run(database, "merge", "--apply", "--limit", "10")
    assert status == 0, errors
    sql(
        database,
        "INSERT INTO departments (name) SELECT 'Research' FROM generate_series(1, 3);"
        "INSERT INTO employees (department_id, name) SELECT 1, 'Ada' FROM generate_series(1, 3)",
    )
    return database


def fuzz(database: str, token: str, options: list[str]) -> bool:
    """Return whether every answer was as described, and the log names no failure."""
    if token:
        options = [f"--header=Authorization: Bearer {token}", *options]
    with serving(DATABASE_URL=database, WORKERS="2", API_TOKEN=token) as service:
        done = subprocess.run(
            [SCHEMATHESIS, "run", f"{service.url}/openapi.json", "--checks=all", *options],
            cwd=FOLDER,
            check=False,
        )
        log = service.log.read_text()
        print(log, end="", flush=True)
        return done.returncode == 0 and "Traceback" not in log


if __name__ == "__main__":
    sys.exit(main())
