"""Duplicates: reports the keys that have several rows, and how many rows refer to those."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from typing import Any

from psycopg import RawServerCursor

from db.connection import Row
from db.resources import RESOURCES, Resource
from db.texts import inert, printable, say
from db.way_out.change import Session, ask, for_each, sql_of
from db.way_out.references import held_against

# How many keys the report shows as a table. CSV and JSON have all of them.
WORST = 10

COLUMNS = (
    "resource", "key", "copies", "id", "first_created_at", "last_created_at", "referring"
)  # fmt: skip


def duplicates(connection: Session, name: str) -> Iterator[Row]:
    """Yield the keys that several rows share, those with the most rows first, in bounded memory."""
    # WITH HOLD lets the server keep the rows, on disk if there are many, without an open
    # transaction.
    with RawServerCursor(connection, "duplicates", withhold=True) as cursor:
        cursor.execute(sql_of(f"{name}/duplicates"))
        yield from cursor


def report(connection: Session, form: str, names: Iterable[str] = RESOURCES) -> bool:
    """Print the duplicates as "table", "csv" or "json", and return whether there are none.

    Raises Refused, which names the resources whose report failed.
    """
    found = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")

    def tell(name: str) -> None:
        nonlocal found
        if form == "table":
            found += _print_table(connection, RESOURCES[name])
            return
        for row in duplicates(connection, name):
            if form == "csv":
                writer.writerow(_cells(row))
            else:
                told = {column: row[column] for column in COLUMNS}
                print(",\n" if found else "[", json.dumps(told, default=_text), end="")
            found += 1

    if form == "csv":
        writer.writerow(COLUMNS)
    try:
        for_each(connection, names, tell)
    finally:
        if form == "json":
            print("]" if found else "[]")
    return not found


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


def _cells(row: Row) -> list[object]:
    plain = {**row, "key": key_text(row)}
    cells = [value if isinstance(value, int) else _text(value) for value in map(plain.get, COLUMNS)]
    # An id is of use to a program only as it is, but a terminal would obey it.
    safe = printable if sys.stdout.isatty() else str
    return [inert(safe(cell)) if isinstance(cell, str) else cell for cell in cells]


def key_text(row: Row) -> str:
    """Return the key as JSON in ASCII, because a terminal might obey characters of a name."""
    return json.dumps(row["key"])


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return "" if value is None else str(value)
