"""The road from duplicates to a constraint, under traffic, fails no request and loses nothing."""

import asyncio
import json
import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import httpx
import pytest

from tests.support import legacy
from tests.support.legacy import duplicated, fill
from tests.support.service import LIMIT, Service, connection_to, serving, sql, until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("durable")]

ROWS = 100_000
CLIENTS = 8

# The statuses that each kind of request may get.
EXPECTED = {
    "create department": {200, 201},
    "create employee": {200, 201},
    "get": {200, 308},
    "list": {200, 308},
    "delete": {204, 404},
}


@dataclass
class Traffic:
    """Clients that send requests of every kind until stopped, and the answers that they got."""

    service: Service
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    acknowledged: dict[int, str] = field(default_factory=dict)  # employees' names, by id
    deleted: set[int] = field(default_factory=set)
    stopped: bool = False

    def __enter__(self) -> "Traffic":
        self.pool = ThreadPoolExecutor(1)
        self.task = self.pool.submit(asyncio.run, self._run())
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        self.task.result(LIMIT)
        self.pool.shutdown()

    def await_more(self) -> None:
        """Wait until each client has had its turn a few times."""
        enough = self.answers.total() + 5 * CLIENTS
        until(lambda: self.answers.total() >= enough or self.task.done())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        draw = random.Random(number)
        async with connection_to(self.service) as http:
            for turn in count():
                if self.stopped:
                    return
                await self._turn(http, draw, f"client {number}, {turn}")

    async def _turn(self, http: httpx.AsyncClient, draw: random.Random, new: str) -> None:
        kind = draw.choice([*EXPECTED, "create employee", "create employee"])
        department = draw.randrange(1, 501)  # the commands merge many of them meanwhile
        employee = draw.randrange(1, ROWS + 1)
        old = draw.random() < 0.5
        if kind == "create department":
            name = f"department {draw.randrange(400)}" if old else new
            answer = await http.post("/departments", json={"name": name})
        elif kind == "create employee":
            name = f"employee {draw.randrange(160)}" if old else new
            body = {"name": name, "department_id": department}
            answer = await http.post("/employees", json=body)
            if answer.status_code in (200, 201):
                self.acknowledged[answer.json()["id"]] = name
        elif kind == "get":
            known = list(self.acknowledged.keys() - self.deleted)
            answer = await http.get(f"/employees/{draw.choice(known or [1])}")
        elif kind == "list":
            answer = await http.get(f"/employees?department_id={department}&limit=10")
        else:
            # Noted before the answer, for another client may meet the deletion earlier.
            self.deleted.add(employee)
            answer = await http.delete(f"/employees/{employee}")
        self.answers[kind, answer.status_code] += 1


def rows(database: str, resource: str) -> set[int]:
    return {id_ for (id_,) in sql(database, f"SELECT id FROM {resource}")}


def test_the_road_under_traffic(database: str) -> None:
    fill(database, ROWS)
    before = {resource: rows(database, resource) for resource in ("departments", "employees")}
    surplus = duplicated(database, "employees")
    assert surplus == ROWS // 5
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        with Traffic(service) as traffic:
            traffic.await_more()
            road(database, surplus, traffic)
            traffic.await_more()
        check_answers(traffic)
        check_rows(database, before, traffic)
        check_redirects(service)
        again = service.post("/departments", name="department 1")
        new = service.post("/departments", name="one more")
        assert (again.status_code, new.status_code) == (200, 201)


def road(database: str, surplus: int, traffic: Traffic) -> None:
    """Run all commands, and kill merge and enforce at some moments."""
    assert legacy.run(database, "doctor")[0] == 0
    status, output, _ = legacy.run(database, "duplicates", "--format", "json")
    assert status == 1
    assert sum(row["copies"] - 1 for row in json.loads(output)) >= surplus * 0.9
    assert legacy.run(database, "guard", "on")[0] == 0
    traffic.await_more()
    assert legacy.run(database, "merge")[0] == 0
    assert legacy.run(database, "enforce")[0] == 1
    for part in (random.uniform(0, 0.3), random.uniform(0.3, 0.6)):
        with legacy.start(database, "merge", "--apply") as process:
            until(
                lambda n=part * surplus: (  # type: ignore[misc]
                    merged(database) >= n or process.poll() is not None
                )
            )
            process.send_signal(signal.SIGKILL)
            output, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, output + errors
    status, output, errors = legacy.run(database, "merge", "--apply")
    assert status == 0, output + errors
    with legacy.start(database, "enforce") as process:
        name = random.choice(["departments_key", "employees_key"])
        until(lambda: sql(database, "SELECT to_regclass(%s)", name) != [(None,)])
        process.send_signal(signal.SIGKILL)
    status, output, errors = legacy.run(database, "enforce")
    assert status == 0, output + errors
    assert legacy.run(database, "doctor")[0] == 0


def merged(database: str) -> int:
    return int(sql(database, "SELECT count(*) FROM merged")[0][0])


def check_answers(traffic: Traffic) -> None:
    """Assert that each kind was asked, and got only statuses that it may get."""
    for (kind, status), number in traffic.answers.items():
        if kind == "get" and status == 404 and number <= len(traffic.deleted):
            continue  # a client had deleted the row, or the one that was kept for it
        assert status in EXPECTED[kind], f"{number} times {status} to {kind}"
    assert {kind for kind, _ in traffic.answers} == set(EXPECTED)
    assert traffic.answers["get", 200] > 0
    assert traffic.answers["create employee", 201] > 0


def check_rows(database: str, before: dict[str, set[int]], traffic: Traffic) -> None:
    """Assert that every row that was there or acknowledged is there, in merged, or was deleted."""
    for resource, ids in before.items():
        away = sql(database, "SELECT id::bigint FROM merged WHERE resource = %s", resource)
        here = rows(database, resource) | {id_ for (id_,) in away}
        known = ids | (traffic.acknowledged.keys() if resource == "employees" else set())
        assert known - here <= traffic.deleted
        assert duplicated(database, resource) == 0
    assert sql(
        database,
        "SELECT conname::text FROM pg_constraint JOIN pg_index ON indexrelid = conindid"
        " WHERE contype = 'u' AND conrelid IN ('departments'::regclass, 'employees'::regclass)"
        " AND indisvalid AND convalidated ORDER BY 1",
    ) == [("departments_key",), ("employees_key",)]


def check_redirects(service: Service) -> None:
    """Assert that a merged id leads to a row of the same name, unless it was deleted later."""
    for resource in ("departments", "employees"):
        sample = sql(
            service.database,
            "SELECT id, content->>'name' FROM merged WHERE resource = %s"
            " ORDER BY random() LIMIT 200",
            resource,
        )
        assert sample
        for id_, name in sample:
            response = service.http.get(f"/{resource}/{id_}")
            assert response.status_code == 308
            kept = service.http.get(response.headers["location"])
            assert kept.status_code == 404 or kept.json()["name"] == name
            assert kept.status_code == 200 or resource == "employees"
    assert (
        sql(
            service.database,
            "SELECT FROM merged WHERE NOT EXISTS"
            " (SELECT FROM departments WHERE id::text = kept) AND resource = 'departments'",
        )
        == []
    )
