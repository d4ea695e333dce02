"""What guard, merge and undo do for one resource they do for each, and not for another's rows."""

import asyncio
import re
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import db.way_out.guard
import db.way_out.merge
from db.connection import Connection
from db.header import File
from db.pool import Pool
from db.resources import RESOURCES, Resource
from db.rows import Retired, get_or_create, get_or_create_many, look_up, read
from db.transaction import Attempts, transact
from db.way_out import change
from db.way_out.merge import merge
from db.way_out.tally import Tally
from db.way_out.undo import undo
from tests.support import legacy
from tests.support.pools import SECONDS
from tests.support.service import LIMIT, sql
from tests.support.triggers import make_trigger

pytestmark = pytest.mark.anyio

each_resource = pytest.mark.parametrize("resource", ["departments", "employees"])

# The columns of a new row, beside its id, and their values.
COLUMNS = {"departments": "name", "employees": "department_id, name"}
VALUES = {"departments": "%s", "employees": "1, %s"}

# Gives a row the key of another one, whatever column the statement has named.
CHANGES_THE_KEY = "NEW.name := 'Ada'; RETURN NEW;"


def insert(database: str, resource: str, id_: int, name: str) -> None:
    sql(
        database,
        f"INSERT INTO {resource} (id, {COLUMNS[resource]}) VALUES (%s, {VALUES[resource]})",
        id_,
        name,
    )


def department(database: str) -> None:
    """Make the department of the employees, with an id that no other row of a test has."""
    sql(database, "INSERT INTO departments (id, name) VALUES (1, 'Research')")


def key(resource: str, name: str) -> list[str]:
    return [name] if resource == "departments" else ["1", name]


# The guard


def turn_on_the_guard(database: str, resource: str) -> None:
    with change.connect(database, "guard") as connection:
        db.way_out.guard.guard(connection, "on", [resource])


@each_resource
@pytest.mark.parametrize("by", ["the statement", "a trigger"])
def test_the_guard_refuses_a_key_that_a_row_gets_later(
    resource: str, by: str, database: str
) -> None:
    department(database)
    insert(database, resource, 8, "Ada")
    insert(database, resource, 9, "Grace")
    turn_on_the_guard(database, resource)
    assignment = "name = 'Ada'"
    if by == "a trigger":
        assignment = "created_at = now()"
        make_trigger(database, resource, CHANGES_THE_KEY, "BEFORE UPDATE", name="changes_the_key")
    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        sql(database, f"UPDATE {resource} SET {assignment} WHERE id = 9")
    assert refused.value.diag.constraint_name == f"{resource}_key"


# Merge, and what leads to the row that it kept


@each_resource
async def test_the_way_to_a_kept_row_does_not_lead_through_another_resource(
    resource: str, pool: Pool, database: str
) -> None:
    department(database)
    other = "employees" if resource == "departments" else "departments"
    for table, ids in ((resource, (12, 13)), (other, (11, 12))):
        for id_ in ids:
            insert(database, table, id_, "Ada")
    assert (await merge(database, None)).notes == []
    assert await look_up(pool, resource, "13", SECONDS) == Retired("12")
    assert await look_up(pool, other, "12", SECONDS) == Retired("11")
    assert await look_up(pool, other, "13", SECONDS) is None
    insert(database, resource, 10, "Ada")
    assert (await merge(database, None, names=[resource])).rows == {resource: 1}
    assert await look_up(pool, resource, "13", SECONDS) == Retired("10")


@each_resource
async def test_the_row_with_the_lowest_id_is_the_first_wherever_it_lies(
    resource: str, pool: Pool, database: str
) -> None:
    department(database)
    for id_ in (9, 8, 10):  # in this order they lie in the table, and in its index
        insert(database, resource, id_, "Ada")
    ada = key(resource, "Ada")

    async def one(connection: Connection) -> int:
        return int((await get_or_create(connection, resource, ada, [])).row["id"])

    async def many(connection: Connection) -> int:
        width = len(ada)
        (found,) = await get_or_create_many(connection, resource, width, [ada], Attempts(), 9)
        return int(found.row["id"])

    async def listed(connection: Connection) -> list[int]:
        fields = RESOURCES[resource].files["list"].parameters
        given = {"limit": "9"} | ({"department_id": "1"} if resource == "employees" else {})
        values = [given.get(each.name) for each in fields]
        rows = await read(connection, f"{resource}/list", values)
        return [row["id"] for row in rows if row["name"] == "Ada"]

    assert await transact(pool, one, seconds=SECONDS) == 8
    assert await transact(pool, many, seconds=SECONDS) == 8
    assert await transact(pool, listed, seconds=SECONDS) == [8, 9, 10]
    with change.connect(database, "duplicates") as session:
        (first,) = change.ask(session, f"distributed/{resource}/select", *ada)
        (least,) = change.ask(session, f"{resource}/duplicates")
        (differing, *_) = change.ask(session, f"{resource}/differences")
        assert (first["id"], least["id"], differing["ids"]) == (8, 8, ["8", "9", "10"])
    turn_on_the_guard(database, resource)
    with pytest.raises(psycopg.errors.UniqueViolation, match="the row with id 8"):
        insert(database, resource, 11, "Ada")
    assert (await merge(database, None, names=[resource])).rows == {resource: 2}
    assert sql(database, f"SELECT id FROM {resource} WHERE name = 'Ada'") == [(8,)]


@each_resource
def test_merge_and_undo_are_serializable(resource: str, database: str) -> None:
    department(database)
    for id_ in (8, 9):
        insert(database, resource, id_, "Ada")
    make_trigger(
        database,
        resource,
        "IF current_setting('transaction_isolation') <> 'serializable' THEN"
        " RAISE 'not serializable'; END IF; RETURN coalesce(NEW, OLD);",
        "BEFORE INSERT OR DELETE",
    )
    for work in (merge, undo):
        tally = asyncio.run(work(database, None, names=[resource]))
        assert (tally.rows, tally.notes) == ({resource: 1}, [])


@each_resource
async def test_what_differs_is_looked_at_in_the_transaction_that_merges(
    resource: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    department(database)
    for id_ in (8, 9):
        insert(database, resource, id_, "Ada")
    for each in RESOURCES:
        turn_on_the_guard(database, each)  # without it merge locks writers out
    sql(database, f"UPDATE {resource} SET created_at = '2026-01-01'")
    merge_keys = db.way_out.merge.merge_keys

    async def later(*arguments: Any) -> Tally:
        sql(database, f"UPDATE {resource} SET created_at = '2026-01-02' WHERE id = 9")
        return await merge_keys(*arguments)

    monkeypatch.setattr(db.way_out.merge, "merge_keys", later)
    tally = await merge(database, None, LIMIT, names=[resource], but=[])
    assert (tally.rows, tally.differ) == ({}, {resource: 1})


# Undo, which points back what has not moved since


@each_resource
def test_undo_does_not_wait_for_a_row_of_another_resource(resource: str, pairs: str) -> None:
    other = "employees" if resource == "departments" else "departments"
    fill(pairs, resource, [(12, 13)])
    assert asyncio.run(merge(pairs, None, names=[resource])).rows == {resource: 2}
    # Later, a row of the other resource goes whose id is that of the row that was kept here.
    for id_ in (10, 11):
        insert(pairs, other, id_, "Alan")
    assert asyncio.run(merge(pairs, None, names=[other])).rows == {other: 1}
    tally = asyncio.run(undo(pairs, None, names=[resource]))
    assert (tally.rows, tally.notes) == ({resource: 2}, [])


def twice_referred(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    """Let merge know a table that refers to each resource by two columns."""
    resources = dict(RESOURCES)
    for name in RESOURCES:
        files = dict(RESOURCES[name].files)
        for column in ("first", "second"):
            for kind in ("repoint", "left", "repoint_back"):
                file = RESOURCES["departments"].files[f"employees.department_id/{kind}"]
                text = re.sub(r"\bemployees\b", f"pairs_of_{name}", file.text)
                text = re.sub(r"\bdepartments\b", name, text).replace("department_id", column)
                files[f"pairs_of_{name}.{column}/{kind}"] = File(file.path, text)
        resources[name] = Resource(name, files)
        sql(
            database,
            f"CREATE TABLE pairs_of_{name} (id bigint PRIMARY KEY,"
            f" first bigint REFERENCES {name}, second bigint REFERENCES {name})",
        )
    legacy.serve(monkeypatch, resources)


@pytest.fixture
def pairs(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database in which two columns of a table refer to each resource."""
    twice_referred(monkeypatch, database)
    department(database)
    return database


def fill(database: str, resource: str, pairs: list[tuple[int, int]]) -> None:
    """Make three rows of a key, a fourth row, and the pairs, and nothing else."""
    table = f"pairs_of_{resource}"
    for each in (table, "merged", f"{resource} WHERE id > 10"):
        sql(database, f"DELETE FROM {each}")
    for id_, name in ((11, "Ada"), (12, "Ada"), (13, "Ada"), (14, "Grace")):
        insert(database, resource, id_, name)
    for number, (first, second) in enumerate(pairs):
        sql(database, f"INSERT INTO {table} VALUES (%s, %s, %s)", number, first, second)


ids = st.integers(11, 14)


@each_resource
@settings(max_examples=3)  # each merges and undoes, which takes a third of a second
@example(before=[(12, 13), (13, 12), (12, 12), (14, 11)], moved={(0, 0), (2, 1)})
@given(
    before=st.lists(st.tuples(ids, ids), min_size=4, max_size=4),
    moved=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=3),
)
def test_undo_points_back_each_reference_that_has_not_moved_since(
    resource: str, pairs: str, before: list[tuple[int, int]], moved: set[tuple[int, int]]
) -> None:
    fill(pairs, resource, before)
    there = f"SELECT first, second FROM pairs_of_{resource} ORDER BY id"
    assert asyncio.run(merge(pairs, None, names=[resource])).rows == {resource: 2}
    kept = {11: 11, 12: 11, 13: 11, 14: 14}
    assert sql(pairs, there) == [(kept[first], kept[second]) for first, second in before]
    expected = [list(pair) for pair in before]
    for number, column in moved:
        name = ("first", "second")[column]
        sql(pairs, f"UPDATE pairs_of_{resource} SET {name} = 14 WHERE id = %s", number)
        expected[number][column] = 14
    assert asyncio.run(undo(pairs, None, names=[resource])).rows == {resource: 2}
    assert sql(pairs, there) == [tuple(pair) for pair in expected]
