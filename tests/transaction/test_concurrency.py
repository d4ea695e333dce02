"""Many clients of two workers get one row, one id and one 201 for each key."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from tests.support.service import Service, connection_to, serving

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

KEYS = 2000
TIMES = 4


async def post_all(service: Service, department: int, names: Iterable[str], clients: int) -> None:
    """Post the names, in order, from clients that each take the next one; assert all answers."""
    queue = iter(names)
    statuses: Counter[int] = Counter()
    created: Counter[str] = Counter()
    ids = defaultdict(set)

    async def client() -> None:
        async with connection_to(service) as http:
            for name in queue:
                body = {"name": name, "department_id": department}
                answer = await http.post("/employees", json=body)
                statuses[answer.status_code] += 1
                created[name] += answer.status_code == 201
                ids[name].add(answer.json().get("id"))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())

    rows = Counter(
        name
        for (name,) in service.sql(
            "SELECT name FROM employees WHERE department_id = %s", department
        )
    )
    assert set(statuses) <= {200, 201}
    assert set(created.values()) == {1}
    assert {len(seen) for seen in ids.values()} == {1}
    assert rows == dict.fromkeys(ids, 1)


@pytest.mark.parametrize(("order", "pipeline"), [("random", "1"), ("increasing", "0")])
async def test_each_key_gets_one_row(database: str, order: str, pipeline: str) -> None:
    names = [f"name {number:06}" for number in range(KEYS) for _ in range(TIMES)]
    if order == "random":
        random.shuffle(names)
    with serving(DATABASE_URL=database, WORKERS="2", PIPELINE=pipeline) as service:
        department = service.post("/departments", name="Research").json()["id"]
        await post_all(service, department, names, clients=64)


async def test_one_key_from_all_clients(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        for number in range(50):
            department = service.post("/departments", name=f"no. {number}").json()["id"]
            await post_all(service, department, ["Ada"] * 64, clients=16)


async def test_creators_and_deleters_of_a_department_never_get_a_500(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        statuses: Counter[tuple[str, int]] = Counter()

        async def client(number: int) -> None:
            async with connection_to(service) as http:
                for turn in range(40):
                    answer = await http.post("/departments", json={"name": "Research"})
                    statuses["department", answer.status_code] += 1
                    id_ = answer.json()["id"]
                    body = {"name": f"{turn}", "department_id": id_}
                    answer = await http.post("/employees", json=body)
                    statuses["employee", answer.status_code] += 1
                    if turn % 4 == number % 4:
                        answer = await http.delete(f"/departments/{id_}")
                        statuses["delete", answer.status_code] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(client(number))

        assert {status for what, status in statuses if what == "department"} <= {200, 201}
        assert {status for what, status in statuses if what == "employee"} <= {200, 201, 422}
        assert {status for what, status in statuses if what == "delete"} <= {204, 404}
        duplicates = "SELECT FROM employees GROUP BY department_id, name HAVING count(*) > 1"
        assert service.sql(duplicates) == []
        assert service.sql("SELECT FROM departments GROUP BY name HAVING count(*) > 1") == []
