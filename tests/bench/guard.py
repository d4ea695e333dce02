"""Measures what the guard costs a writer that does not know of it, beside other ways to do it.

`python -m tests.bench.guard` sends single-row INSERTs of employees at READ COMMITTED with pgbench.
The sides take turns on one server. It prints transactions a second, and the ratio to no guard.
"""

import re
import subprocess
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.embedded import embedded_server
from db.programs import BIN
from db.queries import QUERIES
from db.schema import apply_schema
from db.way_out.change import Session, change, connect
from db.way_out.guard import GUARD_ON
from tests.support.service import temporary_data_dir

ROUNDS = 5
SECONDS = 6
CLIENTS = 8
ROWS = 100_000  # that are there before

# This guard has an advisory lock instead of its table. It holds at READ COMMITTED. At the other
# levels a transaction that gets the lock does not see in its older snapshot what the last holder
# has committed. So it would have to refuse those levels, the service's own among them.
LOCK = re.compile(rb"    INSERT INTO employees_guard_locks.*?;\n", re.DOTALL)
ADVISORY = b"    PERFORM pg_advisory_xact_lock(hashtextextended(NEW.name, NEW.department_id));\n"

INSERT = r"""\set department random(1, 100)
\set name random(1, 1000000000000)
{begin}
INSERT INTO employees (department_id, name) VALUES (:department, 'new ' || :name);
{end}
"""

BEFORE = f"""
INSERT INTO departments (name) SELECT n FROM generate_series(1, 100) AS n;
INSERT INTO employees (department_id, name)
SELECT n % 100 + 1, 'old ' || n FROM generate_series(1, {ROWS}) AS n;
"""


def with_lock(lock: bytes) -> bytes:
    """Return the guard's function with the advisory lock."""
    function = QUERIES["employees/guard"].replace(b"CREATE", b"CREATE OR REPLACE", 1)
    text, changed = LOCK.subn(lock, function)
    assert changed == 1
    return text


def guard(connection: Session) -> None:
    change(connection, ["employees"], [QUERIES[f"employees/{file}"] for file in GUARD_ON])


def advisory_guard(connection: Session) -> None:
    guard(connection)
    connection.execute(with_lock(ADVISORY))


def unique(connection: Session) -> None:
    connection.execute("CREATE UNIQUE INDEX ON employees (department_id, name)")


def nothing(_: Session) -> None:
    pass


class Side(NamedTuple):
    """What makes a table ready, and the transaction to run on it."""

    prepare: Callable[[Session], None]
    serializable: bool = False


SIDES = {
    "no guard": Side(nothing),
    "guard": Side(guard),
    "guard with an advisory lock": Side(advisory_guard),
    "unique index": Side(unique),
    "no guard, SERIALIZABLE": Side(nothing, serializable=True),
    "guard, SERIALIZABLE": Side(guard, serializable=True),
}


def main() -> None:
    """Print the table."""
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    with temporary_data_dir() as data_dir, embedded_server(data_dir) as url:
        databases = {}
        for number, (name, side) in enumerate(SIDES.items()):
            databases[name] = make_conninfo(url, dbname=f"side_{number}")
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE side_{number}")
            apply_schema(databases[name])
            with connect(databases[name], "benchmark") as connection:
                connection.execute(BEFORE.encode())
                side.prepare(connection)
                connection.execute("VACUUM ANALYZE")
        for _ in range(ROUNDS):
            for name, side in SIDES.items():
                rates[name].append(pgbench(databases[name], side.serializable))
    base = median(rates["no guard"])
    for name, measured in rates.items():
        middle = median(measured)
        spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
        print(f"{name:30} {middle:7,.0f} a second ({spread})  {middle / base:.2f}")


def pgbench(database: str, serializable: bool) -> float:
    """Run the transaction and return how many a second."""
    given = conninfo_to_dict(database)
    script = INSERT.format(
        begin="BEGIN ISOLATION LEVEL SERIALIZABLE;" if serializable else "",
        end="COMMIT;" if serializable else "",
    )
    options = {
        "client": CLIENTS,
        "jobs": 2,
        "time": SECONDS,
        "protocol": "prepared",
        "max-tries": 100,
        "host": given["host"],
        "port": given["port"],
        "username": given["user"],
    }
    done = subprocess.run(
        [
            BIN / "pgbench",
            "--no-vacuum",
            "--file=/dev/stdin",
            *(f"--{name}={value}" for name, value in options.items()),
            str(given["dbname"]),
        ],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


if __name__ == "__main__":
    main()
