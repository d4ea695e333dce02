"""Duplicates: reports the keys that have several rows, how many rows refer to those, and more."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any

from psycopg import RawServerCursor

from db.pipeline import Row
from db.resources import RESOURCES, Resource
from db.texts import inert, printable, say
from db.way_out.change import Session, ask, for_each, sql_of
from db.way_out.references import held_against

# How many keys the report shows as a table. CSV and JSON have all of them.
WORST = 10

COLUMNS = (
    "resource", "key", "copies", "id", "first_created_at", "last_created_at", "referring"
)  # fmt: skip

# Those of them that are timestamps.
TIMES = ("first_created_at", "last_created_at")

# The columns of the report of differences.
DIFFERENCES = ("resource", "key", "copies", "id", "column_name", "ids", "values")


def duplicates(connection: Session, name: str) -> Iterator[Row]:
    """Yield the keys that several rows share, those with the most rows first, in bounded memory."""
    for row in _streamed(connection, f"{name}/duplicates"):
        yield {**row, **{each: _to_the_second(row[each]) for each in TIMES}}


def differences(connection: Session, name: str) -> Iterator[Row]:
    """Yield each column in which rows of a key differ, for each key, in the order of the keys."""
    return _streamed(connection, f"{name}/differences")


def _streamed(connection: Session, query: str) -> Iterator[Row]:
    # WITH HOLD lets the server keep the rows, on disk if there are many, without an open
    # transaction.
    with RawServerCursor(connection, query, withhold=True) as cursor:
        cursor.execute(sql_of(query))
        yield from cursor


def report(connection: Session, form: str, names: Iterable[str] = RESOURCES) -> bool:
    """Print the duplicates as "table", "csv" or "json", and return whether there are none.

    Raises Refused, which names the resources whose report failed.
    """
    if form != "table":
        return not write(connection, form, names, COLUMNS, duplicates)
    found = []
    for_each(
        connection, names, lambda name: found.append(_print_table(connection, RESOURCES[name]))
    )
    return not any(found)


def write(
    connection: Session,
    form: str,
    names: Iterable[str],
    columns: Sequence[str],
    rows: Callable[[Session, str], Iterator[Row]],
) -> bool:
    """Print the rows of each resource as "csv" or "json", and return whether there are any.

    Raises Refused, which names the resources whose rows could not be had.
    """
    found = False
    writer = csv.writer(sys.stdout, lineterminator="\n")

    def tell(name: str) -> None:
        nonlocal found
        for row in rows(connection, name):
            if form == "csv":
                writer.writerow(_cells(row, columns))
            else:
                told = {column: row[column] for column in columns}
                print(",\n" if found else "[", json.dumps(told, default=_text), end="")
            found = True

    if form == "csv":
        writer.writerow(columns)
    try:
        for_each(connection, names, tell)
    finally:
        if form == "json":
            print("]" if found else "[]")
    return found


def _print_table(connection: Session, resource: Resource) -> bool:
    rows = duplicates(connection, resource.name)
    first = next(rows, None)
    if first is None:
        say(f"{resource.name}: every key has one row.")
        return False
    say(f"{resource.name}: {first['total']:,} keys have {first['surplus']:,} rows too many.")
    for key in ask(connection, "way_out/foreign_keys", *held_against(resource)):
        if key["reference"] is None:
            say(f"{key['referring']} refers to them, too, and merge has no SQL for that.")
    say(f"{'rows':>8} {'id kept':>10} {'first':20} {'last':20} {'referring':>9}  key")
    for row in islice(chain([first], rows), WORST):
        say(
            f"{row['copies']:>8,} {_text(row['id']):>10} {_text(row['first_created_at']):20}"
            f" {_text(row['last_created_at']):20} {row['referring']:>9,}  {key_text(row)}"
        )
    if first["total"] > WORST:
        say(f"and {first['total'] - WORST:,} keys more: --format csv or json lists all.")
    return True


def _cells(row: Row, columns: Sequence[str]) -> list[object]:
    found = [key_text(row) if column == "key" else row[column] for column in columns]
    cells = [value if isinstance(value, int) else _text(value) for value in found]
    # An id is of use to a program only as it is, but a terminal would obey it.
    safe = printable if sys.stdout.isatty() else str
    return [inert(safe(cell)) if isinstance(cell, str) else cell for cell in cells]


def key_text(row: Row) -> str:
    """Return the key as JSON in ASCII, because a terminal might obey characters of a name."""
    return json.dumps(row["key"])


def _text(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps(value)
    return "" if value is None else str(value)


def _to_the_second(time: str | None) -> str | None:
    """Return a time in UTC without its fraction, or as it is if Python cannot hold it."""
    try:
        return time and datetime.fromisoformat(time).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:  # 'infinity', or a year with five digits
        return time
