"""Runs the two SQL files in pgbench, on PostgreSQL alone, without HTTP and Python."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from db.programs import BIN
from tests.bench.keys import DEPARTMENTS
from tests.bench.load import Load, percentiles
from tests.proof.schedules import ageless

# \\aset leaves `id` alone where select.sql found no row; \\gset would fail.
SCRIPT = r"""
{numbers}
\set id 0
BEGIN ISOLATION LEVEL SERIALIZABLE;
{select} \aset
\if :id = 0
{insert};
\endif
COMMIT;
"""

# These draw as keys.exist() and keys.new() do.
NUMBERS = {
    "exist": rf"""
\set n random(0, {{rows}} - 1)
\set department_id :n % {DEPARTMENTS} + 1
""",
    "new": rf"""
\set n random(0, 281474976710655)
\set department_id random(1, {DEPARTMENTS})
""",
}
NAMES = {"exist": "('Employee ' || :n)", "new": "(:n || ' {mark}')"}


def pgbench(
    database: str, regime: str, rows: int, mark: str, connections: int, seconds: int
) -> Load:
    """Run get-or-create in pgbench; `regime` is one of NUMBERS."""
    name = NAMES[regime].format(mark=mark)
    script = SCRIPT.format(
        numbers=NUMBERS[regime].format(rows=rows),
        select=_statement("employees/select", name),
        insert=_statement("employees/insert", name),
    )
    with tempfile.TemporaryDirectory(prefix="onerow-bench-") as folder:
        done = subprocess.run(
            [
                BIN / "pgbench",
                "--no-vacuum",
                "--file=/dev/stdin",
                "--protocol=prepared",
                "--max-tries=1000",
                "--log",
                f"--client={connections}",
                f"--time={seconds}",
                database,
            ],
            input=script,
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
            # The service's connections have this setting, too: see db/pool.py.
            env={**os.environ, "PGOPTIONS": "-c enable_seqscan=off"},
        )
        log = "".join(file.read_text() for file in Path(folder).iterdir())
    # The third column is the microseconds of a transaction, its retries included.
    times = [int(line.split()[2]) / 1e6 for line in log.splitlines() if " failed " not in line]
    retried = re.search(r"total number of retries: (\d+)", done.stdout)
    failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
    refused = int(failed[1]) if failed else 0
    return Load(
        len(times) + refused,
        seconds,
        *percentiles(times),
        refused=refused,
        broken=0,
        retried=int(retried[1]) if retried else 0,
    )


def _statement(query: str, name: str) -> str:
    # An insert that comes too late, as on a busy machine, would end pgbench, which repeats only
    # serialization failures and deadlocks.
    text = ageless(query).decode()
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    statement = "\n".join(lines).rstrip(";")
    return statement.replace("$1", ":department_id").replace("$2", name)
