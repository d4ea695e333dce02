"""The API answers clients that come one after the other as a model in memory does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.service import Service, serving

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    database = new_database()
    with serving(DATABASE_URL=database) as service, psycopg.connect(database) as connection:
        connection.autocommit = True
        Machine.service, Machine.connection = service, connection
        yield service


@dataclass(frozen=True)
class Row:
    id: int
    name: str
    department_id: int | None = None  # None for a department

    def key(self) -> dict[str, Any]:
        fields = {"name": self.name, "department_id": self.department_id}
        return {name: value for name, value in fields.items() if value is not None}


NAMES = st.sampled_from(["Ada", "ada", "Ada ", "é", "e\u0301", "漢", "' OR 1=1 --", "%", "a" * 255])
COUNTS = st.integers(0, 20)  # picks a row, by counting round through those that are there
TABLES = st.sampled_from(["departments", "employees"])


class Machine(RuleBasedStateMachine):
    """Holds the rows of both tables, as a client knows them from the answers, for a model."""

    service: Service
    connection: psycopg.Connection

    @initialize()
    def empty(self) -> None:
        self.rows: dict[str, list[Row]] = {"departments": [], "employees": []}
        self.retired = {"departments": 404, "employees": 404}
        self.connection.execute("TRUNCATE departments, employees RESTART IDENTITY")

    def pick(self, table: str, count: int) -> int:
        """Return the id of a row, or, if there is none, of one that was deleted."""
        rows = self.rows[table]
        return rows[count % len(rows)].id if rows else self.retired[table]

    def wanted(self, table: str, name: str, department: int) -> Row:
        id_ = None if table == "departments" else self.pick("departments", department)
        return Row(0, name, id_)

    @rule(table=TABLES, name=NAMES, department=COUNTS, strict=st.booleans())
    def create(self, table: str, name: str, department: int, strict: bool) -> None:
        wanted = self.wanted(table, name, department)
        prefer = {"Prefer": "handling=strict"} if strict else {}
        answer = self.service.http.post(f"/{table}", json=wanted.key(), headers=prefer)
        parents = [row.id for row in self.rows["departments"]]
        if table == "employees" and wanted.department_id not in parents:
            assert answer.status_code == 422
            return
        same = [row for row in self.rows[table] if replace(row, id=0) == wanted]
        assert answer.headers.get("Duplicates") == (str(len(same)) if len(same) > 1 else None)
        if strict and len(same) > 1:
            assert answer.status_code == 412
            return
        row = row_of(answer)
        if same:
            assert answer.status_code == 200
            assert row == same[0]
        else:
            assert answer.status_code == 201
            assert row == replace(wanted, id=row.id)
            assert all(row.id > other.id for other in self.rows[table])
            self.rows[table].append(row)
        assert answer.headers["Location"] == f"/{table}/{row.id}"

    @rule(table=TABLES, name=NAMES, department=COUNTS, copies=st.integers(1, 3))
    def legacy_rows(self, table: str, name: str, department: int, copies: int) -> None:
        wanted = self.wanted(table, name, department)
        if table == "employees" and not self.rows["departments"]:
            return
        columns, values = ", ".join(wanted.key()), list(wanted.key().values())
        places = ", ".join(["%s"] * len(values))
        for _ in range(copies):
            ((id_,),) = self.connection.execute(
                f"INSERT INTO {table} ({columns}) VALUES ({places}) RETURNING id", values
            )
            self.rows[table].append(replace(wanted, id=id_))

    @rule(table=TABLES, count=COUNTS)
    def get(self, table: str, count: int) -> None:
        id_ = self.pick(table, count)
        answer = self.service.http.get(f"/{table}/{id_}")
        there = [row for row in self.rows[table] if row.id == id_]
        assert answer.status_code == (200 if there else 404)
        assert [row_of(answer)] * len(there) == there

    @rule(table=TABLES, count=COUNTS)
    def delete(self, table: str, count: int) -> None:
        id_ = self.pick(table, count)
        answer = self.service.http.delete(f"/{table}/{id_}")
        there = [row for row in self.rows[table] if row.id == id_]
        assert answer.status_code == (204 if there else 404)
        for row in there:
            self.rows[table].remove(row)
            self.retired[table] = id_
        if table == "departments":
            kept = [row for row in self.rows["employees"] if row.department_id != id_]
            self.rows["employees"] = kept

    @rule(
        table=TABLES,
        name=st.none() | NAMES,
        department=st.none() | COUNTS,
        after=COUNTS,
        limit=st.none() | st.integers(1, 4),
    )
    def list_(
        self, table: str, name: str | None, department: int | None, after: int, limit: int | None
    ) -> None:
        params: dict[str, Any] = {"after": after}
        if limit is not None:
            params["limit"] = limit
        if department is not None and table == "employees":
            params["department_id"] = self.pick("departments", department)
        if name is not None and (department is not None or table == "departments"):
            params["name"] = name
        expected = [
            row
            for row in self.rows[table]
            if row.id > after
            and row.name == params.get("name", row.name)
            and row.department_id == params.get("department_id", row.department_id)
        ]
        url: str | None = f"/{table}?{httpx.QueryParams(params)}"
        found: list[Row] = []
        while url is not None:
            page = self.service.http.get(url).json()
            items = [Row(i["id"], i["name"], i.get("department_id")) for i in page["items"]]
            url = page["next"]
            found += items
            assert len(items) <= (limit or 100)
            assert url is None or len(items) == (limit or 100)
            assert (url is None) == (len(found) >= len(expected))
        assert found == expected

    @precondition(lambda self: hasattr(self, "rows"))
    @invariant()
    def tables_hold_what_the_model_holds(self) -> None:
        departments = self.connection.execute("SELECT id, name FROM departments ORDER BY id")
        employees = self.connection.execute(
            "SELECT id, name, department_id FROM employees ORDER BY id"
        )
        assert [Row(*row) for row in departments] == self.rows["departments"]
        assert [Row(*row) for row in employees] == self.rows["employees"]


def row_of(answer: httpx.Response) -> Row:
    content: dict[str, Any] = answer.json() if answer.status_code < 300 else {"id": 0, "name": ""}
    return Row(content["id"], content["name"], content.get("department_id"))


@pytest.mark.usefixtures("service")
def test_one_client_after_the_other() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=30))
