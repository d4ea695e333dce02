"""A service behind the gate, its tables, and the requests that meet in them."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection

from db import own_service
from db.prove.gate import ASK, Gate
from db.prove.schedule import LIMIT, Others, Request, Run
from db.resources import ROOT

SAMPLE = ("departments", "employees")

# The limit of insert.sql to the age of its transaction, and what stands in its place: a schedule
# has no clock, and what waits for its turn would be too late.
AGE, AGELESS = "interval '50 milliseconds'", "interval '1 day'"

# Makes the tables as they are before each schedule: one department, and, in ONE, its employee. The
# next employee has the next id. TRUNCATE would take eight times as long.
NONE: LiteralString = """
DELETE FROM employees;
DELETE FROM departments;
DELETE FROM merged;
INSERT INTO departments (id, name) VALUES (1, 'Research');
SELECT setval(pg_get_serial_sequence('employees', 'id'), 1, false);
"""
ONE: LiteralString = f"""{NONE}
INSERT INTO employees (department_id, name) VALUES (1, 'Ada');
"""

# After so many schedules the deleted rows are vacuumed, so that the tables stay small.
VACUUM = 100

ALL_ROWS = """
SELECT 'departments', id, name, 0 FROM departments
UNION ALL SELECT 'employees', id, name, department_id FROM employees
ORDER BY 1, 2
"""


class Answer(NamedTuple):
    """What a request was told."""

    status: int
    body: Any  # from JSON, without the times at which rows were created; None if there is none
    headers: Mapping[str, str]  # by their names in lower case

    def items(self) -> list[tuple[int, Any]]:
        """Return the rows that it tells of, each with its status."""
        if self.status not in (200, 201):
            return []
        if isinstance(self.body, list):
            return [(item["status"], item["row"]) for item in self.body]
        return [(self.status, row) for row in self.body.get("items", [self.body])]

    def __str__(self) -> str:
        return (
            f"{self.status} {json.dumps(self.body)}" if self.body is not None else str(self.status)
        )


# The log's line when a worker begins to serve.
BEGINS = re.compile(r"worker \d+ begins")


class Kind(NamedTuple):
    """A request over HTTP."""

    method: str
    path: str
    body: Any = None


ADA = {"department_id": 1, "name": "Ada"}

KINDS = {
    "create": Kind("POST", "/employees", ADA),
    "array": Kind("POST", "/employees", [ADA, {"department_id": 1, "name": "Grace"}]),
    "delete": Kind("DELETE", "/employees/1"),
    "delete parent": Kind("DELETE", "/departments/1"),
    "read": Kind("GET", "/employees/1"),
    "list": Kind("GET", "/employees?department_id=1"),
}


@dataclass
class Scene:
    """What a schedule plays in."""

    gate: Gate
    port: int  # of the service
    database: str  # its URL, past the gate
    tables: AsyncConnection[Any]
    connections: int  # how many the service keeps
    workers: int  # how many it has
    log: Path  # which has a line when a worker begins to serve
    started: int = 0  # how many schedules were begun

    async def start(
        self, rows: LiteralString, requests: Sequence[Request], others: Others | None = None
    ) -> Run:
        """Make the tables as `rows` says, and return the run of these requests, not sent yet.

        `others` is that of Run.
        """
        self.started += 1
        if self.started % VACUUM == 0:
            await self.tables.execute("VACUUM departments, employees, merged")
        await self.tables.execute(rows)
        return Run(self.gate, requests, others)

    async def ready(self) -> None:
        """Wait until each worker serves, with all its connections.

        Before it serves it asks the database whether it is ready. Those steps are no request's.
        """
        async with asyncio.timeout(2 * LIMIT):
            while self._begun() < self.workers + self.gate.killed:  # noqa: ASYNC110  # it is a file
                await asyncio.sleep(ASK)
            while len(self.gate.lines) < self.connections:
                self.gate.changed.clear()
                await self.gate.changed.wait()

    def _begun(self) -> int:
        return len(BEGINS.findall(self.log.read_text()))

    async def reconnect(self) -> None:
        """Go on with a server that was killed and started."""
        await self.gate.reconnect()
        await self.tables.close()
        self.tables = await _connect(self.database)

    def request(self, kind: Kind) -> Request:
        """Return the request that sends this."""
        return partial(asyncio.to_thread, ask, self.port, kind)

    async def rows(self) -> list[tuple[str, int, str, int]]:
        """Return the table, the id, the name and the department (0 if it is one) of each row."""
        return await (await self.tables.execute(ALL_ROWS)).fetchall()


async def _connect(database: str) -> AsyncConnection[Any]:
    # A pooler may give each transaction another session, which has nothing prepared.
    return await AsyncConnection.connect(database, autocommit=True, prepare_threshold=None)


def ask(port: int, kind: Kind) -> Answer:
    """Send a request to the service. Raises OSError or http.client.HTTPException."""
    connection = HTTPConnection("127.0.0.1", port, timeout=2 * LIMIT)
    try:
        body = None if kind.body is None else json.dumps(kind.body)
        connection.request(kind.method, kind.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        told = json.loads(content, object_hook=_timeless) if content else None
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, told, headers)
    finally:
        connection.close()


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "created_at"}


@asynccontextmanager
async def scene(
    database: str, *command: str, at_any_age: bool = True, **settings: str
) -> AsyncIterator[Scene]:
    """Start the service, or another `command`, behind a gate. The database has the tables.

    `settings` are further variables of the service's environment. With `at_any_age` an insert has
    no limit of 50 ms, which would depend on how fast a schedule runs. Raises Refused if the service
    does not start, or psycopg.Error.
    """
    with tempfile.TemporaryDirectory(prefix="onerow-prove-") as folder:
        resources = Path(folder) / "sql"
        names = _resources(resources, at_any_age)
        async with Gate.before(database, names) as gate:
            settings = {
                "WORKERS": "1",
                "POOL_SIZE": "4",
                "RETRY_DEADLINE": str(2 * LIMIT),  # what waits for its turn is not given up
                "RESOURCES": str(resources),
                **settings,
            }
            environment = own_service.environment(gate.url, **settings)
            log = Path(folder) / "log"
            with log.open("w") as file:
                process = await asyncio.create_subprocess_exec(
                    *(command or [sys.executable, "app.py"]),
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    preexec_fn=own_service.end_with_parent,
                )
            try:
                assert process.stdout is not None
                line = (await process.stdout.readline()).decode()
                port = own_service.port_in(line, log.read_text)
                workers = int(settings["WORKERS"])
                connections = workers * int(settings["POOL_SIZE"])
                tables = await _connect(database)
                there = Scene(gate, port, database, tables, connections, workers, log)
                try:
                    await there.ready()
                    yield there
                finally:
                    await there.tables.close()
            finally:
                gate.open()
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                await process.wait()


def _resources(folder: Path, at_any_age: bool) -> dict[bytes, str]:
    """Copy the sample's files, with AGELESS for AGE if it is so; return what to call statements."""
    for name in SAMPLE:
        shutil.copytree(ROOT / "sql" / name, folder / name)
    files = [*folder.rglob("*.sql")]
    for path in files if at_any_age else []:
        path.write_text(path.read_text().replace(AGE, AGELESS))
    files += (ROOT / "sql").rglob("*.sql")
    return {path.read_bytes(): path.stem for path in files}
