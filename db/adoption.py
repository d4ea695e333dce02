"""The way to a unique constraint, but for the merge: report, guard, enforce."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from typing import Any

import psycopg
from psycopg import RawServerCursor

from db.change import Connection, Refused, ask, change, for_each, sql_of, wait_for_turn
from db.definition import indexes, made_by
from db.header import names_of
from db.kind import check_ordinary
from db.moves import table_of
from db.pool import Row
from db.resources import RESOURCES, Resource
from db.texts import inert, say

# In order. The search_path first: the guard's objects belong beside its table, wherever that is.
GUARD_OFF = ("guard_search_path", "guard_off", "guard_locks_drop")
GUARD_ON = (
    *GUARD_OFF,  # a new guard each time: it must be younger than any row written without it
    "guard_locks",
    "guard",
    "guard_insert",
    "guard_update",
    "guard_always",
)

# Rows of the report as a table.
WORST = 10

COLUMNS = (
    "resource", "key", "copies", "id", "first_created_at", "last_created_at", "referring"
)  # fmt: skip


# duplicates


def duplicates(connection: Connection, name: str) -> Iterator[Row]:
    """Yield the keys that several rows share, the worst first, in bounded memory."""
    # WITH HOLD: the server keeps the rows, on disk if they are many, and no transaction stays open.
    with RawServerCursor(connection, "duplicates", withhold=True) as cursor:
        cursor.execute(sql_of(f"{name}/duplicates"))
        yield from cursor


def report(connection: Connection, form: str, names: Iterable[str] = RESOURCES) -> bool:
    """Print the duplicates as "table", "csv" or "json"; return whether there are none.

    Raises Refused, which names the resources that could not be asked.
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


def _print_table(connection: Connection, resource: Resource) -> bool:
    rows = duplicates(connection, resource.name)
    first = next(rows, None)
    if first is None:
        say(f"{resource.name}: every key has one row.")
        return False
    say(f"{resource.name}: {first['total']:,} keys have {first['surplus']:,} rows too many.")
    for key in ask(connection, "adoption/foreign_keys", *held_against(resource)):
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
    return [inert(cell) if isinstance(cell, str) else cell for cell in cells]


def key_text(row: Row) -> str:
    """The key as JSON in ASCII: a name may hold what a terminal would obey."""
    return json.dumps(row["key"])


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return "" if value is None else str(value)


def held_against(resource: Resource) -> list[Any]:
    """Return the parameters of foreign_keys.sql, which finds what a resource has no files for."""
    references = resource.references
    names = [names_of(each) for each in references]
    # A folder whose name has no table in it is found to have no foreign key.
    tables = [
        table_of(each) if len(parts) > 1 else None
        for each, parts in zip(references, names, strict=True)
    ]
    return [resource.table, references, tables, [parts[-1] for parts in names]]


def check_references(resource: Resource, foreign_keys: list[Row]) -> None:
    """Raise Refused unless the foreign keys to a resource are those that there are files for."""
    if unknown := [key["referring"] for key in foreign_keys if key["reference"] is None]:
        raise Refused(
            "a foreign key that merge has no SQL for would delete rows or refuse:"
            f" {', '.join(unknown)}"
        )
    if gone := [key["reference"] for key in foreign_keys if key["referring"] is None]:
        raise Refused(
            f"without a foreign key {', '.join(gone)} a row written meanwhile"
            f" would refer to a row of {resource.name} that is gone"
        )


def refuse_relatives(connection: Connection, resource: Resource) -> None:
    """Raise Refused unless the resource's table is an ordinary one."""
    check_ordinary(resource.table, ask(connection, "adoption/kind", resource.table))


# guard


def refuse_others_objects(connection: Connection, resource: Resource) -> None:
    """Raise Refused if what to drop a guard would drop is not a guard's."""
    others = ask(connection, "adoption/guard_others", resource.table, resource.name)
    if others:
        raise Refused(
            f"{' and '.join(each['description'] for each in others)} would be dropped with the"
            " guard, and is none of it: rename it first"
        )


def guard_status(connection: Connection, resource: Resource) -> str:
    """Return "on", "off" or "incomplete"."""
    status: str = ask(connection, "adoption/guard_status", resource.table, resource.name)[0][
        "status"
    ]
    return status


def refuse_guarded(connection: Connection, resource: Resource) -> None:
    """Raise Refused if the guard or a constraint would refuse the rows that undo puts back."""
    if guard_status(connection, resource) != "off":
        raise Refused("the guard refuses duplicates: run `python -m db guard off` first")
    if key_index(connection, resource):
        raise Refused(f"{resource.name}_key refuses duplicates: drop that constraint first")


def guard(connection: Connection, action: str, names: Iterable[str] = RESOURCES) -> bool:
    """Turn guards on or off, or neither, and print how they are; return whether that is well.

    Raises Refused, which names the resources whose guard is as it was.
    """

    well = True

    def turn(name: str) -> None:
        resource = RESOURCES[name]
        if action == "on":
            refuse_relatives(connection, resource)
        refuse_others_objects(connection, resource)
        files = GUARD_ON if action == "on" else GUARD_OFF
        # In one transaction: a guard is there as a whole or not at all.
        change(connection, [resource.table], [sql_of(f"{name}/{file}") for file in files])

    def tell(name: str) -> None:
        nonlocal well
        status = guard_status(connection, RESOURCES[name])
        say(f"{name}: the guard is {status}.")
        well &= status == ("off" if action == "off" else "on")

    try:
        if action != "status":
            wait_for_turn(connection)
            for_each(connection, names, turn)
    finally:
        for_each(connection, names, tell)
    return well


# enforce


def enforce(connection: Connection, names: Iterable[str] = RESOURCES) -> None:
    """Make each key unique and drop its guard.

    Raises Refused, which names the resources whose guard is as it was.
    """
    wait_for_turn(connection)

    def enforce_one(name: str) -> None:
        resource = RESOURCES[name]
        refuse_relatives(connection, resource)
        refuse_others_objects(connection, resource)  # for at the end the guard is dropped
        refuse_duplicates(connection, name)
        make_unique(connection, resource)
        guard(connection, "off", [name])

    for_each(connection, names, enforce_one)


def refuse_duplicates(connection: Connection, resource: str) -> None:
    """Raise Refused, naming keys, if several rows share one."""
    rows = duplicates(connection, resource)
    some = list(islice(rows, 3))
    if some:
        names = ", ".join(key_text(row) for row in some)
        raise Refused(
            f"{resource} has {some[0]['total']:,} keys with several rows ({names}, ...):"
            " run `python -m db guard on` and `python -m db merge --apply` first"
        )


def make_unique(connection: Connection, resource: Resource) -> None:
    """Build the unique index, unless it is there, and make it a constraint if it can be one."""
    name = f"{resource.name}_key"
    index = key_index(connection, resource)
    if index and not index["valid"]:
        say(f"Dropping {name}, which an earlier run left INVALID.")
        ask(connection, f"{resource.name}/index_drop")
        index = None
    if not index:
        try:
            say(f"Building {name}.")
            ask(connection, f"{resource.name}/index")
        except psycopg.Error as error:
            if not connection.closed and key_index(connection, resource):
                ask(connection, f"{resource.name}/index_drop")
            if not isinstance(error, psycopg.errors.UniqueViolation):
                raise
            refuse_duplicates(connection, resource.name)
            raise
    if "constraint" not in resource.files:
        say(f"{name} is a unique index of {resource.table}, and holds for all writers.")
        return
    if not index or not index["is_constraint"]:
        change(connection, [resource.table], [sql_of(f"{resource.name}/constraint")])
    say(f"{name} is a constraint of {resource.table}.")


def key_index(connection: Connection, resource: Resource) -> Row | None:
    """The unique index that has the key's name. Raises Refused if it is another one."""
    named, _ = indexes(connection, resource, "key")
    if named is None or not named["is_unique"]:
        return None
    if named["mine"] and is_alike(named, made_by(connection, resource, "index")):
        return named
    raise Refused(f"{named['name']} is an index of something else: rename it first")


def is_alike(index: Row, other: Row) -> bool:
    """Tell whether two unique indexes refuse the same rows."""
    return all(index[what] == other[what] for what in ("keys", "nulls_equal", "predicate"))
