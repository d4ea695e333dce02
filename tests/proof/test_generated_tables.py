"""Tables are drawn, adopted and served, and drawn workloads on them make one row for a key."""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from psycopg import RawCursor

from tests.proof.linearizability import Call, Key, Row
from tests.proof.search import Broken, wrong
from tests.proof.tables import MOST_CLIENTS, TYPES, Step, Table, Workload, tables, workloads
from tests.proof.workloads import History
from tests.support import legacy
from tests.support.adopting import adopt
from tests.support.folders import quoted
from tests.support.service import LIMIT, serving, sql

pytestmark = pytest.mark.long

# A start of the service takes as long as all workloads on a table, so that one serves four.
TABLES = 4

# How often four tables are drawn. Hypothesis draws the simplest first, which is four times the same
# table, so that three times make nine different tables, and two for each control make five.
EXAMPLES = 3
CONTROLS = 2

# So many workloads run on each table. Of 32 tables served from a wrong folder, each was caught
# within nine.
WORKLOADS = 10

# A control must be caught within so many workloads, which is twenty times as many as it took.
TRIES = 200

# The checker takes all rows for departments, of which it knows an id and a name.
TABLE = "departments"


@dataclass
class Seen:
    """A call, and the JSON of its answer; the checker's integers for ids are known at the end."""

    call: Call  # its target is in `id_` where it is an id
    rows: list[dict[str, Any]]
    id_: Any = None


class Runner:
    """Runs workloads on a table, which is emptied before each."""

    def __init__(self, url: str, database: str) -> None:
        self.loop = asyncio.Runner()
        self.connection = psycopg.connect(database, autocommit=True, cursor_factory=RawCursor)
        self.https = [
            httpx.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False, verify=False)
            for _ in range(MOST_CLIENTS)
        ]
        self.ids = 0  # how many ids requests have brought

    def close(self) -> None:
        for http in self.https:
            self.loop.run(http.aclose())
        self.loop.close()
        self.connection.close()

    def broken(self, name: str, table: Table, workload: Workload) -> str:
        """Run the workload once; return what was wrong, or "" if nothing was."""
        what = wrong(self.run(name, table, workload))
        return what and f"{what}\nin\n{workload}\non\n{table.create()}\n{table}"

    def run(self, name: str, table: Table, workload: Workload) -> History:
        self.connection.execute(f"TRUNCATE {table.sql} RESTART IDENTITY".encode())
        for key, copies in enumerate(workload.before):
            for copy in range(copies):
                self._insert(table, key, copy)
            if table.soft:  # adds a deleted row, which is no copy
                self._insert(table, key, copies, ", deleted_at", ", now()")
        before = self._rows(table)
        seen = self.loop.run(self._clients(name, table, workload, before))
        start = perf_counter()
        after = self._rows(table)
        ids = self._ids(table, [*before, *after, *(row for each in seen for row in each.rows)])

        def known(rows: list[dict[str, Any]]) -> tuple[Row, ...]:
            return tuple(
                Row(TABLE, ids[str(row["id"])], f"key {table.key_of(row)}") for row in rows
            )

        calls = []
        shown: dict[str, dict[str, Any]] = {}
        for each in seen:
            target = (TABLE, ids[str(each.id_)]) if each.id_ is not None else each.call.target
            calls.append(replace(each.call, target=target, rows=known(each.rows)))
            for row in each.rows:  # is the same in every answer, for nobody changes it
                assert shown.setdefault(str(row["id"]), row) == row
        end = Call(-1, "TABLE", None, start, perf_counter(), 200, known(after))
        return History([*known(before)], [*calls, end], [*known(after)])

    def _insert(
        self, table: Table, key: int, number: int, names: str = "", values: str = ""
    ) -> None:
        body = self._body(table, key, 2 * number + 1)
        columns = ", ".join(map(quoted, body))
        places = ", ".join(f"${n}" for n in range(1, len(body) + 1))
        self.connection.execute(
            f"INSERT INTO {table.sql} ({columns}{names}) VALUES ({places}{values})".encode(),
            [None if value is None else str(value) for value in body.values()],
        )

    def _body(self, table: Table, key: int, number: int) -> dict[str, Any]:
        self.ids += 1
        return table.body(key, number, self.ids)

    def _rows(self, table: Table) -> list[dict[str, Any]]:
        """Return the rows inside the condition, their columns as texts."""
        names = [part.name for part in table.parts]
        texts = ", ".join(f"{quoted(each)}::text" for each in (table.id_name, *names))
        where = " WHERE deleted_at IS NULL" if table.soft else ""
        found = self.connection.execute(
            f"SELECT {texts} FROM {table.sql}{where} ORDER BY {quoted(table.id_name)}".encode()
        )
        return [dict(zip(["id", *names], row, strict=True)) for row in found]

    def _ids(self, table: Table, rows: list[dict[str, Any]]) -> dict[str, int]:
        """Return an integer for each id, in PostgreSQL's order of the ids."""
        found = self.connection.execute(
            f"SELECT given, dense_rank() OVER (ORDER BY given::{table.id_cast})"
            " FROM unnest($1::text[]) AS given".encode(),
            [[str(row["id"]) for row in rows]],
        )
        return dict(found.fetchall())

    async def _clients(
        self, name: str, table: Table, workload: Workload, before: list[dict[str, Any]]
    ) -> list[Seen]:
        known = [row["id"] for row in before]
        seen: list[Seen] = []

        async def client(number: int, steps: Sequence[Step]) -> None:
            for step in steps:
                if each := await self._perform(number, name, table, step, known):
                    seen.append(each)
                    known.extend(row["id"] for row in each.rows if row["id"] not in known)

        async with asyncio.TaskGroup() as group:
            for number, steps in enumerate(workload.clients):
                group.create_task(client(number, steps))
        return seen

    async def _perform(
        self, number: int, name: str, table: Table, step: Step, known: list[Any]
    ) -> Seen | None:
        http, target, id_ = self.https[number], Key(TABLE, f"key {step.key}"), None
        strict = step.strict and step.kind == "create"
        start = perf_counter()
        if step.kind == "create":
            body = self._body(table, step.key, step.spelling)
            headers = {"Prefer": "handling=strict"} if strict else {}
            answer = await http.post(f"/{name}", json=body, headers=headers)
        elif step.kind == "list":
            asked = {
                part.name: spellings[step.spelling % len(spellings)]
                for part, spellings in zip(table.parts, table.keys[step.key], strict=True)
            }
            if None in asked.values():  # a query string cannot say NULL
                return None
            answer = await http.get(f"/{name}", params=asked)
        else:
            if not known:
                return None
            id_ = known[step.row % len(known)]
            method = {"get": "GET", "delete": "DELETE"}[step.kind]
            answer = await http.request(method, f"/{name}/{quote(str(id_), safe='')}")
        end = perf_counter()
        found = answer.json() if answer.status_code in (200, 201) else {"items": []}
        attempts = re.search(r"attempts=(\d+)", answer.headers.get("Server-Timing", ""))
        call = Call(
            number,
            {"create": "POST", "list": "LIST"}.get(step.kind, step.kind.upper()),
            target,
            start,
            end,
            answer.status_code,
            copies=int(answer.headers.get("Duplicates", 1)),
            attempts=int(attempts[1]) if attempts else 1,
            strict=strict,
        )
        return Seen(call, found.get("items", [found]), id_)


@contextmanager
def served(
    drawn: Sequence[Table], database: str, change: Callable[[Path], None] = lambda _: None
) -> Iterator[Runner]:
    """Make the tables, write their folders, change those, and serve them with two workers."""
    with TemporaryDirectory() as folder:
        for number, table in enumerate(drawn):
            sql(database, f"CREATE SCHEMA {quoted(table.schema)}")
            with psycopg.connect(database) as connection:
                connection.execute(table.create().encode())
            status, said = adopt(database, Path(folder), *table.adopt(f"drawn{number}"))
            assert status == 0, f"{said}\n{table.create()}\n{table}"
            change(Path(folder) / f"drawn{number}")
        status, output, errors = legacy.run(database, "init", RESOURCES=folder)
        assert status == 0, output + errors
        with serving(DATABASE_URL=database, WORKERS="2", RESOURCES=folder) as service:
            runner = Runner(service.url, database)
            try:
                yield runner
            finally:
                runner.close()


def several(least_parts: int = 1) -> st.SearchStrategy[tuple[Table, ...]]:
    return st.tuples(*(tables(f"shop {number}", least_parts) for number in range(TABLES)))


def each_workload(runner: Runner, name: str, table: Table, number: int, examples: int) -> None:
    """Draw workloads on a table; raise Broken at the first that breaks the promise."""
    report = ""

    # The seed differs from table to table, or each would get the same workloads.
    @seed(number)
    @settings(max_examples=examples, database=None, phases=[Phase.generate])
    @given(workload=workloads(len(table.keys)))
    def run(workload: Workload) -> None:
        nonlocal report
        report = report or runner.broken(name, table, workload)
        # Hypothesis runs it again, and expects the same end, but the same overlaps need not come.
        if report:
            raise Broken(report)

    run()


@settings(max_examples=EXAMPLES, database=None, phases=[Phase.generate])
@given(drawn=several(), number=st.integers(0, 2**32))
def test_any_table_has_one_row_for_a_key(
    new_database: Callable[[], str], drawn: tuple[Table, ...], number: int
) -> None:
    with served(drawn, typed(new_database())) as runner:
        for n, table in enumerate(drawn):
            each_workload(runner, f"drawn{n}", table, number + n, WORKLOADS)


# The negative controls


def does_not_look_first(folder: Path) -> None:
    insert = folder / "insert.sql"
    text, changes = re.subn(
        r"\bWHERE hash_record", "WHERE FALSE AND hash_record", insert.read_text()
    )
    assert changes == 1
    insert.write_text(text)


def leaves_a_part_out(folder: Path) -> None:
    """Change the lookup to all parts of the key but the first."""
    select = folder / "select.sql"
    text, hashes = re.subn(
        r"WHERE hash_record_extended.*?(?=\n      AND)",
        "WHERE TRUE",
        select.read_text(),
        flags=re.DOTALL,
    )
    text, parts = re.subn(
        r"AND .* IS NOT DISTINCT FROM (.*)", r"AND (\1 IS NULL OR TRUE)", text, count=1
    )
    assert (hashes, parts) == (1, 1)
    select.write_text(text)


@pytest.mark.parametrize("change", [does_not_look_first, leaves_a_part_out])
@settings(max_examples=CONTROLS, database=None, phases=[Phase.generate])
@given(drawn=several(least_parts=2), number=st.integers(0, 2**32))
def test_a_folder_that_is_wrong_is_caught(
    new_database: Callable[[], str],
    change: Callable[[Path], None],
    drawn: tuple[Table, ...],
    number: int,
) -> None:
    with served(drawn, typed(new_database()), change) as runner:
        for n, table in enumerate(drawn):
            with pytest.raises(Broken):
                each_workload(runner, f"drawn{n}", table, number + n, TRIES)


def typed(database: str) -> str:
    sql(database, TYPES)
    return database
