"""Workloads, which are drawn before anything runs, and the histories that they leave."""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

import httpx
import psycopg
from hypothesis import strategies as st

from tests.proof.linearizability import Call, Key, Row
from tests.support.service import LIMIT

DEPARTMENTS = ("Research", "Sales", "Legal", "Design", "Finance")
NAMES = ("Ada", "Grace", "Alan", "Edsger", "Barbara")
MOST_CLIENTS = 8


class Operation(NamedTuple):
    """What a client does next.

    Ids are not known before it runs, so that `row` counts through those that are known by then.
    """

    kind: str
    name: int = 0
    row: int = 0
    strict: bool = False  # with it, a list of employees leaves out its filter by name


@dataclass(frozen=True)
class Workload:
    """How many rows there are before, and what each client does, one thing after the other."""

    departments: tuple[int, ...]  # how many rows each name of DEPARTMENTS has before
    employees: tuple[tuple[int, int, int], ...]  # department, name, how many rows
    clients: tuple[tuple[Operation, ...], ...]

    def __str__(self) -> str:
        before = [f"{n} x {DEPARTMENTS[i]}" for i, n in enumerate(self.departments) if n]
        before += [f"{n} x {NAMES[name]} in department {d + 1}" for d, name, n in self.employees]
        lines = [f"before: {', '.join(before) or 'nothing'}"]
        for number, operations in enumerate(self.clients):
            lines.append(f"client {number}: " + ", ".join(map(_said, operations)))
        return "\n".join(lines)

    def smaller(self) -> "Iterator[Workload]":
        """Yield the workloads with one thing less: a client, a call or some rows before."""
        if len(self.clients) > 1:
            for i in range(len(self.clients)):
                yield replace(self, clients=self.clients[:i] + self.clients[i + 1 :])
        for i, client in enumerate(self.clients):
            rest = (self.clients[:i], self.clients[i + 1 :])
            for j in reversed(range(len(client))):
                fewer = client[:j] + client[j + 1 :]
                if fewer:
                    yield replace(self, clients=(*rest[0], fewer, *rest[1]))
        for i in range(len(self.employees)):
            yield replace(self, employees=self.employees[:i] + self.employees[i + 1 :])
        for i, copies in enumerate(self.departments):
            if copies:
                fewer_rows = (*self.departments[:i], copies - 1, *self.departments[i + 1 :])
                yield replace(self, departments=fewer_rows)

    @property
    def size(self) -> int:
        return sum(map(len, self.clients))


def _said(operation: Operation) -> str:
    kind, name, row, strict = operation
    what = (DEPARTMENTS if "department" in kind else NAMES)[name]
    if kind == "create department":
        return f"create {what}" + " (strict)" * strict
    if kind.endswith("s") and kind.startswith("create"):
        others = (DEPARTMENTS if "department" in kind else NAMES)[(name + 1) % len(NAMES)]
        where = f" in department [{row}]" * ("department" not in kind)
        return f"create an array of {what}, {others}, {what}{where}" + " (strict)" * strict
    if kind in ("create employee", "blind insert"):
        return f"{kind.split()[0]} {what} in department [{row}]" + " (strict)" * strict
    return f"{kind} [{row}]"


KINDS = (
    *["create employee"] * 6,
    *["create department"] * 3,
    "create employees",
    "create departments",
    "get employee",
    "get department",
    "list employees",
    "list departments",
    "delete employee",
    "delete employee",
    "delete department",
)

# In these workloads another application inserts beside the service, without looking.
BLIND = (*KINDS, *["blind insert"] * 3)


@st.composite
def workloads(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> Workload:
    """Draw some legacy rows, and two to MOST_CLIENTS clients with one to five operations each.

    The names are few, so that clients meet. Often they only create, because that is where they
    conflict, also on different keys that share a page of the index.
    """
    names = st.integers(0, draw(st.integers(0, len(NAMES) - 1)))
    creating = tuple(kind for kind in kinds if kind.startswith(("create", "blind")))
    churning = (*creating, *["delete employee"] * 4, *["delete department"] * 2)
    operations = st.builds(
        Operation,
        st.sampled_from(draw(st.sampled_from((kinds, creating, churning)))),
        names,
        st.integers(0, draw(st.sampled_from((0, 5)))),
        st.booleans(),
    )
    return Workload(
        departments=(*draw(st.tuples(st.integers(0, 1), st.integers(0, 2))), 0, 0, 0),
        employees=tuple(
            draw(
                st.lists(
                    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 3)), max_size=2
                )
            )
        ),
        clients=tuple(
            tuple(draw(st.lists(operations, min_size=1, max_size=draw(st.sampled_from((3, 8))))))
            for _ in range(draw(st.integers(2, MOST_CLIENTS)))
        ),
    )


@dataclass
class History:
    """The rows before, the calls, and the rows after."""

    before: list[Row]
    calls: list[Call]
    after: list[Row]

    @property
    def gained(self) -> list[Key]:
        """Return the keys that have more than one row, and more than before."""
        before, after = _copies(self.before), _copies(self.after)
        return [key for key, n in after.items() if n > max(1, before.get(key, 0))]


def _copies(rows: Iterable[Row]) -> dict[Key, int]:
    copies: dict[Key, int] = {}
    for table, _, name, department_id in rows:
        key = Key(table, name, department_id)
        copies[key] = copies.get(key, 0) + 1
    return copies


class Runner:
    """Runs workloads against a service, whose tables are emptied before each."""

    def __init__(self, url: str, database: str) -> None:
        self.loop = asyncio.Runner()
        self.connection = psycopg.connect(database, autocommit=True)
        self.https = [
            httpx.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False, verify=False)
            for _ in range(MOST_CLIENTS)
        ]
        self.database = database
        self.requests = 0
        self.retries = 0

    def close(self) -> None:
        for http in self.https:
            self.loop.run(http.aclose())
        self.loop.close()
        self.connection.close()

    def run(self, workload: Workload) -> History:
        self.connection.execute("TRUNCATE departments, employees RESTART IDENTITY")
        for name, copies in zip(DEPARTMENTS, workload.departments, strict=True):
            self._insert("departments (name)", [name], copies)
        there = [row.id for row in self._rows()]
        for department, name_, copies in workload.employees:
            if there:
                parent = there[department % len(there)]
                self._insert("employees (department_id, name)", [parent, NAMES[name_]], copies)
        before = self._rows()
        calls = self.loop.run(self._clients(workload, before))
        start = perf_counter()
        after = self._rows()
        calls.append(Call(-1, "TABLE", None, start, perf_counter(), 200, tuple(after)))
        self.requests += len(calls) - 1
        self.retries += sum(max(0, call.attempts - 1) for call in calls)
        return History(before, calls, after)

    def _insert(self, into: str, values: list[Any], copies: int) -> None:
        places = ", ".join(["%s"] * len(values))
        for _ in range(copies):
            self.connection.execute(f"INSERT INTO {into} VALUES ({places})", values)

    def _rows(self) -> list[Row]:
        departments = self.connection.execute("SELECT id, name FROM departments ORDER BY id")
        employees = self.connection.execute(
            "SELECT id, name, department_id FROM employees ORDER BY id"
        )
        return [
            *(Row("departments", *row) for row in departments),
            *(Row("employees", *row) for row in employees),
        ]

    async def _clients(self, workload: Workload, before: list[Row]) -> list[Call]:
        known: dict[str, list[int]] = {"departments": [], "employees": []}
        for row in before:
            known[row.table].append(row.id)
        calls: list[Call] = []

        async def client(number: int, operations: Iterable[Operation]) -> None:
            for operation in operations:
                if operation.kind == "blind insert":
                    made = await asyncio.to_thread(self._blind_insert, number, operation, known)
                else:
                    made = await perform(self.https[number], number, operation, known)
                calls.extend(made)
                for row in (row for call in made for row in call.rows):
                    if row.id not in known[row.table]:
                        known[row.table].append(row.id)

        async with asyncio.TaskGroup() as group:
            for number, operations in enumerate(workload.clients):
                group.create_task(client(number, operations))
        return calls

    def _blind_insert(
        self, number: int, operation: Operation, known: dict[str, list[int]]
    ) -> list[Call]:
        """Insert at READ COMMITTED without looking first, as another application would."""
        key = Key("employees", NAMES[operation.name], _pick(known["departments"], operation.row))
        start = perf_counter()
        with psycopg.connect(self.database, autocommit=True) as connection:
            try:
                ((id_,),) = connection.execute(
                    "INSERT INTO employees (department_id, name) VALUES (%s, %s) RETURNING id",
                    [key.department_id, key.name],
                )
            except psycopg.errors.ForeignKeyViolation:
                return [Call(number, "POST", key, start, perf_counter(), 422)]
        row = Row(key.table, id_, key.name, key.department_id)
        return [Call(number, "POST", key, start, perf_counter(), 201, (row,))]


def _pick(ids: list[int], row: int) -> int:
    """Return one of the known ids, or, where none is known, one that is not there."""
    return ids[row % len(ids)] if ids else 404


async def perform(
    http: httpx.AsyncClient, number: int, operation: Operation, known: dict[str, list[int]]
) -> list[Call]:
    """Carry out the operation; return its call, with its begin, its end and its answer.

    Each item of an array is a call, with the begin and the end of all.
    """
    kind, name, row, strict = operation
    verb, _, what = kind.partition(" ")
    table = what.rstrip("s") + "s"
    method = {"create": "POST", "list": "LIST", "get": "GET", "delete": "DELETE"}[verb]
    target: Key | tuple[str, int]
    body: dict[str, Any] | list[dict[str, Any]] | None = None
    items: list[Key] = []
    if verb in ("create", "list"):
        if table == "departments":
            target = Key(table, DEPARTMENTS[name])
            fields: dict[str, Any] = {"name": target.name}
        else:
            target = Key(table, NAMES[name], _pick(known["departments"], row))
            if verb == "list" and strict:
                target = target._replace(name="")  # without a filter by name
            fields = {"name": target.name, "department_id": target.department_id}
        if verb == "create":
            path, body = f"/{table}", fields
            if kind.endswith("s"):
                names = DEPARTMENTS if table == "departments" else NAMES
                items = [target, target._replace(name=names[(name + 1) % len(names)]), target]
                body = [{**fields, "name": each.name} for each in items]
        else:
            path = f"/{table}?{httpx.QueryParams({k: v for k, v in fields.items() if v})}"
    else:
        target = (table, _pick(known[table], row))
        path = f"/{table}/{target[1]}"
    strict = strict and verb == "create"
    asked: list[Key | tuple[str, int]] = [*items] if items else [target]
    start = perf_counter()
    try:
        answer = await http.request(
            "GET" if verb == "list" else method,
            path,
            json=body,
            headers={"Prefer": "handling=strict"} if strict else None,
        )
    except httpx.TransportError:
        return [Call(number, method, each, start, strict=strict) for each in asked]
    end = perf_counter()
    if items and answer.status_code == 200:
        told = [_told(table, item) for item in answer.json()]
    else:
        copies = int(answer.headers.get("Duplicates", 1))
        told = [(answer.status_code, _rows(table, answer), copies)] * len(asked)
    return [
        Call(number, method, each, start, end, *one, _attempts(answer), strict)
        for each, one in zip(asked, told, strict=True)
    ]


def _told(table: str, item: dict[str, Any]) -> tuple[int, tuple[Row, ...], int]:
    """Return the status, the row and the copies that an array's answer tells of one item.

    The rows of a 412 are left out, as one that is alone does not have them.
    """
    row = Row(table, item["row"]["id"], item["row"]["name"], item["row"].get("department_id", 0))
    return item["status"], (row,) if item["status"] != 412 else (), item["duplicates"]


def _rows(table: str, answer: httpx.Response) -> tuple[Row, ...]:
    if answer.status_code not in (200, 201):
        return ()
    content = json.loads(answer.content)
    items = content.get("items", [content])
    return tuple(
        Row(table, item["id"], item["name"], item.get("department_id", 0)) for item in items
    )


def _attempts(answer: httpx.Response) -> int:
    found = re.search(r"attempts=(\d+)", answer.headers.get("Server-Timing", ""))
    return int(found[1]) if found else 1
