"""Merge is right beside writers even when PostgreSQL has forgotten who read what merge writes."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psycopg
import pytest

import db.way_out.merge
from db.connection import Connection
from db.way_out.tally import Item, Tally
from tests.support import legacy
from tests.support.legacy import duplicated
from tests.support.others import make_others, others, remembered
from tests.support.service import LIMIT, Service, serving, sql, until


def forget(database: str) -> None:
    """Run more serializable transactions than PostgreSQL remembers while an older one goes on."""
    others(database, remembered(database) + 500)


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    make_others(database)
    with serving(DATABASE_URL=database, RETRY_DEADLINE="20") as service:
        yield service


def waiting(database: str, application: str) -> int:
    """Return how many sessions of this name wait for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = %s AND wait_event_type = 'Lock'"
    )
    return int(sql(database, query, application)[0][0])


@contextmanager
def held_merge(service: Service, row: str) -> Iterator[ThreadPoolExecutor]:
    """Begin a merge, and let it wait, until the block ends, for a row that it will change."""
    with ThreadPoolExecutor() as threads:
        with psycopg.connect(service.database) as holder:
            holder.execute(f"SELECT FROM {row} FOR UPDATE".encode())
            # The limit is one key, for the next one's merge could mend what goes wrong with this.
            work = db.way_out.merge.merge(service.database, 1, seconds=LIMIT)
            merging = threads.submit(asyncio.run, work)
            until(lambda: waiting(service.database, "onerow merge") > 0)
            yield threads
        assert merging.result().notes == []


def answered(service: Service, *requests: "Future[httpx.Response]") -> bool:
    """Wait until each request is answered or waits for the merge; return whether none waits."""
    left = list(requests)

    def settled() -> bool:
        left[:] = [request for request in left if not request.done()]
        return waiting(service.database, "onerow") == len(left)

    until(settled)
    return not left


@pytest.mark.parametrize("guard", ["on", "off", "on departments"])
def test_a_key_that_is_created_while_an_employee_comes_to_it(service: Service, guard: str) -> None:
    database = service.database
    sql(database, "INSERT INTO departments (name) VALUES ('Sales'), ('Sales')")
    sql(database, "INSERT INTO employees (department_id, name) VALUES (2, 'Ada')")
    legacy.run(database, "guard", *guard.split())
    with held_merge(service, "employees WHERE id = 1") as threads:
        answer = threads.submit(service.post, "/employees", name="Ada", department_id=1)
        if answered(service, answer):
            forget(database)
    assert answer.result().status_code in (200, 201)
    assert duplicated(database, "departments") == 0
    assert duplicated(database, "employees") == 0


@pytest.mark.parametrize("resource", ["departments", "employees"])
def test_the_row_to_keep_is_deleted_and_another_one_found(service: Service, resource: str) -> None:
    database = service.database
    sql(database, "INSERT INTO departments (name) VALUES ('Sales')")
    body: dict[str, object] = {"name": "Sales"}
    if resource == "departments":
        sql(database, "INSERT INTO departments (name) VALUES ('Sales')")
    else:
        sql(database, "INSERT INTO employees (department_id, name) VALUES (1, 'Ada'), (1, 'Ada')")
        body = {"name": "Ada", "department_id": 1}
    with held_merge(service, f"{resource} WHERE id = 2") as threads:
        deletion = threads.submit(service.http.delete, f"/{resource}/1")
        deleted = answered(service, deletion)
        finding = threads.submit(service.post, f"/{resource}", **body)
        if answered(service, deletion, finding):
            forget(database)
    found = finding.result()
    assert (deletion.result().status_code, found.status_code in (200, 201)) == (204, True)
    # The row was deleted before the POST, which then found another row. That one must be there.
    if deleted:
        ((kept,),) = sql(database, f"SELECT id FROM {resource}")
        assert kept == found.json()["id"]


@pytest.mark.parametrize(
    "change", ["DELETE FROM employees", "UPDATE employees SET name = 'Grace'"], ids=["gone", "new"]
)
def test_the_row_to_keep_is_changed_by_a_writer_that_is_not_serializable(
    service: Service, change: str
) -> None:
    database = service.database
    sql(database, "INSERT INTO departments (name) VALUES ('Sales')")
    sql(database, "INSERT INTO employees (department_id, name) VALUES (1, 'Ada'), (1, 'Ada')")

    def write() -> int:
        with psycopg.connect(database, application_name="onerow") as connection:
            return connection.execute(f"{change} WHERE id = 1 RETURNING id".encode()).rowcount

    with held_merge(service, "employees WHERE id = 2") as threads:
        writing = threads.submit(write)
        until(lambda: writing.done() or waiting(database, "onerow") > 0)
        first = writing.done()
    assert writing.result() == 1
    rows = sql(database, "SELECT id FROM employees WHERE name = 'Ada'")
    # A writer that came first changed row 1, and row 2 stays. One that waited for the merge changed
    # the only row that is left.
    assert rows == ([(2,)] if first else [])


@pytest.mark.parametrize("names", [["Ada"] * 3, ["Ada"] * 3 + ["Grace"] * 2])
def test_a_key_is_merged_whose_row_to_keep_was_deleted_before_its_turn(
    names: list[str], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(database, "INSERT INTO departments (name) VALUES ('Sales')")
    for name in names:
        sql(database, "INSERT INTO employees (department_id, name) VALUES (1, %s)", name)
    merge_keys = db.way_out.merge.merge_keys

    async def later(
        connection: Connection, items: list[Item], but: list[str] | None = None
    ) -> Tally:
        sql(database, "DELETE FROM employees WHERE id = 1")
        return await merge_keys(connection, items, but)

    monkeypatch.setattr(db.way_out.merge, "merge_keys", later)
    tally = asyncio.run(db.way_out.merge.merge(database, None, names=["employees"]))
    assert (tally.rows, tally.notes) == ({"employees": len({*names})}, [])
    assert duplicated(database, "employees") == 0
