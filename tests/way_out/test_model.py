"""Merge, undo and merge again do what a model says, whatever the rows and the options are."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from psycopg import RawCursor
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from db.resources import read_resources
from db.way_out.merge import merge
from db.way_out.undo import undo
from tests.support import legacy
from tests.support.accounts import (
    COLUMNS,
    REFERENCES,
    TABLES,
    TRIGGERS,
    Adopted,
    Edit,
    adoptions,
    edits,
    inserts,
    refers,
)
from tests.support.adopting import adopt
from tests.support.model import Model, line, moved
from tests.support.orders import Row
from tests.support.service import sql


class Tables:
    """The tables themselves."""

    def __init__(self, connection: psycopg.Connection[Row], adopted: Adopted) -> None:
        self.connection = connection
        self.run("TRUNCATE accounts, orders, links, members, visits, merged")
        for name in TRIGGERS:
            how = "ENABLE" if name in adopted.triggers else "DISABLE"
            self.run(f"ALTER TABLE accounts {how} TRIGGER {name}")

    def edit(self, model: Model, edits: list[Edit]) -> None:
        """Change the model and the tables alike."""
        for edit in edits:
            if (done := model.edit(*edit)) is None:
                continue
            what, number = done
            change = edit[2]
            if what == "insert":
                row = {**model.accounts[number], "line": None}
                self.run(
                    "INSERT INTO accounts VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                    *(stored(name, row[name]) for name in COLUMNS),
                )
            elif what == "refer":
                reference, id_ = change
                self._refer(reference, id_, number)
            elif what == "delete":
                self.run("DELETE FROM accounts WHERE number = $1", number)
            else:
                name, value = change
                self.run(
                    f"UPDATE accounts SET {name} = $2 WHERE number = $1",
                    *(number, stored(name, value)),
                )

    def _refer(self, reference: str, id_: int, number: int) -> None:
        table, column = reference.split(".")
        beside = REFERENCES[reference]
        names = f"id, {column}" + (f", {beside}" if beside else "")
        self.run(
            f"INSERT INTO {table} ({names}) VALUES ($1, $2{', $3' if beside else ''})"
            f" ON CONFLICT (id) DO UPDATE SET {column} = EXCLUDED.{column}",
            *[id_, number, id_ % 2][: 3 if beside else 2],
        )

    def run(self, query: str, *parameters: Any) -> list[Row]:
        cursor = self.connection.execute(query.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def check(self, model: Model) -> None:
        """Assert that the tables hold what the model says."""
        accounts = self.run("SELECT * FROM accounts ORDER BY number")
        lines = "write_line" in model.adopted.triggers
        wanted = []
        for _, row in sorted(model.accounts.items()):
            full = {**row, "line": line(row) if lines else None}
            full["data"] = None if row["data"] is None else {"x": row["data"]}
            wanted.append({name: full[name] for name in COLUMNS})
        assert accounts == wanted
        for reference, its in model.refers.items():
            table, column = reference.split(".")
            found = self.run(f"SELECT id, {column} AS account FROM {table} ORDER BY id")
            assert {
                row["id"]: row["account"] for row in found if row["account"] is not None
            } == its, reference
        merged = self.run("SELECT resource, id, kept, filled FROM merged")
        told = {(row["resource"], identified(row["id"])): identified(row["kept"]) for row in merged}
        assert told == {(gone.resource, gone.id): gone.kept for gone in model.merged}
        filled = {
            row["id"]: (set(row["filled"].get("before", {})), row["filled"].get("beside"))
            for row in merged
            if row["filled"]
        }
        assert filled == {
            str(gone.id): (
                {name for names in gone.taken for name in names},
                {"line": gone.line[0]} if gone.line and lines else None,
            )
            for gone in model.merged
            if gone.taken
        }


def identified(id_: str) -> int:
    """Return an id of the table merged as a number. Those of absorbed rows are arrays in JSON."""
    return int(id_.strip("[]"))


def stored(name: str, value: Any) -> Any:
    """Return a value of the model as a parameter."""
    return Jsonb({"x": value}) if name == "data" and value is not None else value


@pytest.fixture(scope="module")
def tables(new_database: Callable[[], str]) -> str:
    database = new_database()
    sql(database, TABLES)
    return database


# As many as there is time for: each takes half a second.
@pytest.mark.parametrize("examples", [5, pytest.param(30, marks=pytest.mark.long)])
def test_merge_undo_and_merge_are_as_the_model(tables: str, examples: int) -> None:
    @settings(max_examples=examples, phases=[Phase.generate])
    @given(
        adopted=adoptions,
        new=st.lists(inserts, min_size=3, max_size=8),
        referring=st.lists(refers, min_size=8, max_size=24),
        between=st.lists(edits, min_size=3, max_size=3),
    )
    def property_(
        adopted: Adopted, new: list[Edit], referring: list[Edit], between: list[list[Edit]]
    ) -> None:
        _hold_against_the_model(tables, adopted, [*new, *referring], between)

    property_()


def _hold_against_the_model(
    tables: str, adopted: Adopted, first: list[Edit], between: list[list[Edit]]
) -> None:
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        psycopg.connect(
            tables, autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
        ) as connection,
    ):
        for words in adopted.words():
            status, said = adopt(tables, Path(folder), *words)
            assert status == 0, said
        resources = read_resources(Path(folder))
        legacy.serve(patch, resources)
        model = Model(adopted)
        there = Tables(connection, adopted)
        there.edit(model, first)
        for edit in between:
            before = len(model.merged)
            left = model.merge()
            tally = asyncio.run(merge(tables, None, names=resources))
            there.check(model)
            assert (tally.rows, tally.refused) == (moved(model, before), [])
            assert sorted(note.split(":")[0] for note in tally.notes) == sorted(
                f"accounts {id_} stays as it is" for id_ in left
            )
            there.edit(model, edit)
            changed = model.undo()
            tally = asyncio.run(undo(tables, None, names=resources))
            there.check(model)
            told = re.findall(
                r"but accounts (\d+)(?: keeps|, which took over) (.*?),",
                re.sub(r" \(it was [^)]*\)", "", "\n".join(tally.notes)),
            )
            assert {
                (int(id_), name) for id_, names in told for name in names.split(" and ")
            } == changed
