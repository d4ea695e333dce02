"""Undo: puts the rows back that merge has moved into the table merged, the last one first."""

import json
import math
from collections.abc import Iterable

from db.connection import Connection
from db.header import names_of, table_of
from db.pipeline import Row
from db.queries import QUERIES
from db.resources import RESOURCES, Resource
from db.way_out import change
from db.way_out.batches import SECONDS, Run, in_batches
from db.way_out.change import Refused, Session, ask
from db.way_out.enforce import refuse_enforced
from db.way_out.guard import refuse_guarded
from db.way_out.moves import rows_of
from db.way_out.references import check_tables, family, locks
from db.way_out.tally import Id, Item, Tally, Triggered, Unmergeable, as_text, merged_rows

# How many rows one transaction puts back, each by statements of its own.
BATCH = 20


async def undo(
    url: str, limit: int | None, seconds: float = SECONDS, names: Iterable[str] = RESOURCES
) -> Tally:
    """Put back the rows that were merged, the last one first, at most `limit` rows.

    The Tally is that of merge(). Raises Refused if a file is missing, Unavailable or psycopg.Error;
    what was committed by then stays put back.
    """
    able: list[str] = []
    refused = Tally()
    before = merged_rows(url)
    with change.connect(url, "merge") as connection:
        for name in names:
            try:
                check_tables(connection, family(name))
                for resource in family(name):
                    _refuse_without_references(connection, resource)
                    refuse_guarded(connection, resource)
                    refuse_enforced(connection, resource)
                able.append(name)
            except Refused as error:
                refused.refused.append(f"{name}: {error}")
        statements = locks(connection, [each for name in able for each in family(name)])
    moved = [f"{name}/{each}" for name in able for each in RESOURCES[name].references]
    refused.notes += [
        f"{resource}: {rows:,} rows stay in merged, for adopt knows no such reference any more"
        for resource, rows in before.items()
        if resource.partition("/")[0] in able and resource not in able + moved
    ]
    run = Run(
        restore,
        query=change.sql_of("way_out/merged_last_first"),
        parameters=[able + moved],
        title="merged",
        unit=" rows",
        locks=statements,
        url=url,
        seconds=seconds,
        batch=BATCH,
        merging=False,
    )
    if able:
        _, tally = await in_batches(run, math.inf if limit is None else limit)
        if tally.triggered:
            tally.notes += _not_as_before(url, tally)
        refused.add(tally)
    refused.rows = before - merged_rows(url)
    return refused


def _refuse_without_references(connection: Session, resource: Resource) -> None:
    """Raise Refused if a column that refers to a resource has gone since its files were written."""
    for reference in resource.references:
        if ask(connection, "way_out/unknown_columns", *_column_of(reference)):
            raise Refused(f"{reference} is gone, or has another name: run `adopt` again")


def _column_of(reference: str) -> tuple[list[str], list[str]]:
    """Return the parameters of sql/way_out/unknown_columns.sql for a reference."""
    return [table_of(reference)], [names_of(reference)[-1]]


async def restore(connection: Connection, items: list[Item], _: bool) -> Tally:
    """Put merged rows back, and point at them again what referred to them before the merge.

    The rows that were kept get back what they had before they took over a column of these. Raises
    Unmergeable or psycopg.Error.
    """
    tally = Tally()
    for resource, id_ in items:
        for later in await rows_of(connection, "way_out/merged_before", resource, as_text(id_)):
            raise Unmergeable(f"{resource} {later['id']} went later, and must come back first")
        # A unique value that was taken over must be free before the row comes back that had it.
        can_unfill = f"{resource}/unfill" in QUERIES
        taken = await rows_of(connection, f"{resource}/unfill", as_text(id_)) if can_unfill else []
        for row in await rows_of(connection, f"{resource}/restore", as_text(id_)):
            if row["changed"]:
                raise Unmergeable(
                    f"{', '.join(row['changed'])} would not be as before: if a trigger is why,"
                    " disable it, and undo again"
                )
            if "before" in (row.get("filled") or {}) and not can_unfill:
                raise Unmergeable(f"there is no {resource}/unfill.sql")
            tally.rows[resource] += 1
            await _point_back(connection, resource, id_, row, tally)
            survivor = f"{resource} {row['kept']}"
            left = _not_back(survivor, taken)
            tally.notes += [f"{resource} {id_} is back, but {each}" for each in left]
            for name, of, whose, so in (
                ("beside", row["kept"], f"{survivor} keeps", ", which a trigger changed"),
                ("own", id_, "a trigger has changed its", ""),
            ):
                if had := _recorded(row, name):
                    if f"{resource}/beside" not in QUERIES:
                        raise Unmergeable(f"there is no {resource}/beside.sql: adopt again")
                    told = f"{resource} {id_} is back, but {whose}", so
                    tally.triggered.append(Triggered(resource, as_text(of), had, told))
    return tally


def _recorded(row: Row, name: str) -> str | None:
    """Return what merge recorded under a name in `filled`, as JSON.

    A file of an earlier version returns it only there, where psycopg has read the JSON.
    """
    if name in row:
        had: str | None = row[name]
        return had
    recorded = (row.get("filled") or {}).get(name)
    return None if recorded is None else json.dumps(recorded)


def _not_as_before(url: str, tally: Tally) -> list[str]:
    """Return notes about columns that triggers changed in merge, and that are not as before.

    This is asked at the end, because triggers see each row come back, and may so undo their work.
    """
    notes = []
    with change.connect(url, "merge") as connection:
        for resource, id_, had, told in tally.triggered:
            rows = ask(connection, f"{resource}/beside", id_, had)
            names = " and ".join(f"{row['name']} (it was {row['value']})" for row in rows)
            if names:
                notes.append(f"{told[0]} {names}{told[1]}")
    return notes


def _not_back(survivor: str, taken: list[Row]) -> list[str]:
    """Return in words what the row that was kept has not got back, by what unfill.sql returns.

    Raises Unmergeable if it should have got something back.
    """
    names = {
        outcome: " and ".join(row["name"] for row in taken if row["outcome"] == outcome)
        for outcome in ("not put back", "changed", "gone")
    }
    if names["not put back"]:
        raise Unmergeable(f"{survivor} would not get back its own {names['not put back']}")
    told = {
        "changed": f"{survivor} keeps {names['changed']}, which changed since it was taken over",
        "gone": f"{survivor}, which took over {names['gone']}, is gone",
    }
    return [text for outcome, text in told.items() if names[outcome]]


async def _point_back(
    connection: Connection, resource: str, id_: Id, row: Row, tally: Tally
) -> None:
    """Point at a row what referred to it; `row` is what restore.sql has returned.

    Raises Unmergeable or psycopg.Error.
    """
    # What merge_rows() pointed last is first, for a row may have got another id each time.
    for reference, ids in sorted(row["pointed"].items(), reverse=True):
        query = f"{resource}/{reference}/repoint_back"
        if query not in QUERIES:
            if await rows_of(connection, "way_out/unknown_columns", *_column_of(reference)):
                raise Unmergeable(
                    f"{reference}, which pointed at it, is gone or has another name: change that"
                    " in merged.pointed"
                )
            raise Unmergeable(f"there is no {query}.sql: `python -m db adopt` writes it")
        texts = [as_text(each) for each in ids]
        back = await rows_of(connection, query, as_text(id_), as_text(row["kept"]), texts)
        if len(back) < len(ids):
            tally.notes.append(
                f"{resource} {id_} is back, but {len(ids) - len(back)} of the {len(ids)}"
                f" rows of {reference} that pointed at it have changed since"
            )
