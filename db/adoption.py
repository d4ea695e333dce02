"""The way to a unique constraint, but for the merge: report, guard, enforce."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from time import sleep
from typing import Any

import psycopg
from psycopg import RawServerCursor

from db.change import Connection, Refused, ask, change
from db.kind import check_ordinary
from db.pool import Row
from db.queries import QUERIES
from db.resources import RESOURCES
from db.texts import inert, say

# The names in each resource's key, in the order of merge.
KEYS = {each.name: tuple(field.name for field in each.key) for each in RESOURCES.values()}

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


# duplicates


def duplicates(connection: Connection, resource: str) -> Iterator[Row]:
    """Yield the keys that several rows share, the worst first, in bounded memory."""
    # WITH HOLD: the server keeps the rows, on disk if they are many, and no transaction stays open.
    with RawServerCursor(connection, "duplicates", withhold=True) as cursor:
        cursor.execute(QUERIES[f"{resource}/duplicates"])
        yield from cursor


def report(connection: Connection, form: str) -> bool:
    """Print the duplicates as "table", "csv" or "json"; return whether there are none."""
    found = False

    def rows() -> Iterator[Row]:
        nonlocal found
        for resource in KEYS:
            for row in duplicates(connection, resource):
                found = True
                yield row

    if form == "table":
        for resource in KEYS:
            found |= _print_table(connection, resource)
    else:
        {"csv": _print_csv, "json": _print_json}[form](rows())
    return not found


def _print_table(connection: Connection, resource: str) -> bool:
    rows = duplicates(connection, resource)
    first = next(rows, None)
    if first is None:
        say(f"{resource}: every key has one row.")
        return False
    say(f"{resource}: {first['total']:,} keys have {first['surplus']:,} rows too many.")
    for key in ask(connection, "adoption/foreign_keys", resource):
        if key["referring"] not in known_references(resource):
            say(f"{key['referring']} refers to them, too, and merge has no SQL for that.")
    say(f"{'rows':>8} {'lowest id':>10} {'first':20} {'last':20} {'referring':>9}  key")
    for row in islice(chain([first], rows), WORST):
        say(
            f"{row['copies']:>8,} {row['id']:>10} {_moment(row['first_created_at']):20}"
            f" {_moment(row['last_created_at']):20} {row['referring']:>9,}  {key_text(row)}"
        )
    if first["total"] > WORST:
        say(f"and {first['total'] - WORST:,} keys more: --format csv or json lists all.")
    return True


COLUMNS = (
    "resource", "key", "copies", "id", "first_created_at", "last_created_at", "referring"
)  # fmt: skip


def _print_csv(rows: Iterable[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in map(_plain, rows):
        cells = [row[name] for name in COLUMNS]
        writer.writerow([inert(cell) if isinstance(cell, str) else cell for cell in cells])


def _print_json(rows: Iterable[Row]) -> None:
    separator = "["
    for row in rows:
        print(separator, json.dumps({name: row[name] for name in COLUMNS}, default=_moment), end="")
        separator = ",\n"
    print("[]" if separator == "[" else "]")


def _plain(row: Row) -> dict[str, Any]:
    moments = ("first_created_at", "last_created_at")
    return {**row, "key": key_text(row), **{name: _moment(row[name]) for name in moments}}


def key_text(row: Row) -> str:
    """The key as JSON in ASCII: a name may hold what a terminal would obey."""
    return json.dumps(row["key"])


def _moment(value: Any) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value else ""


def known_references(resource: str) -> list[str]:
    """The "table.column" that point at a resource and that there are SQL files for."""
    prefix = f"{resource}/"
    return [
        path.removeprefix(prefix).removesuffix("/repoint")
        for path in QUERIES
        if path.startswith(prefix) and path.endswith("/repoint")
    ]


def check_references(resource: str, foreign_keys: list[Row]) -> None:
    """Raise Refused unless the foreign keys to a resource are those that there are files for."""
    there, known = {key["referring"] for key in foreign_keys}, set(known_references(resource))
    if there - known:
        raise Refused(
            "a foreign key that merge has no SQL for would delete rows or refuse:"
            f" {', '.join(sorted(there - known))}"
        )
    if known - there:
        raise Refused(
            f"without a foreign key {', '.join(sorted(known - there))} a row written meanwhile"
            f" would refer to a row of {resource} that is gone"
        )


def refuse_relatives(connection: Connection) -> None:
    """Raise Refused unless each resource's table is an ordinary one."""
    for resource in KEYS:
        check_ordinary(resource, ask(connection, "adoption/kind", resource))


# guard


def refuse_guarded(connection: Connection) -> None:
    """Raise Refused if the guard or a constraint would refuse the rows that undo puts back."""
    for resource in KEYS:
        if ask(connection, "adoption/guard_status", resource)[0]["status"] != "off":
            raise Refused("the guard refuses duplicates: run `python -m db guard off` first")
        if key_index(connection, resource):
            raise Refused(f"{resource}_key refuses duplicates: drop that constraint first")


def guard(connection: Connection, action: str) -> bool:
    """Turn the guard on or off, or neither, and print how it is; return whether that is well."""
    if action != "status":
        wait_for_turn(connection)
        if action == "on":
            refuse_relatives(connection)
        for resource in KEYS:
            files = GUARD_ON if action == "on" else GUARD_OFF
            change(connection, resource, [QUERIES[f"{resource}/{file}"] for file in files])
    well = True
    for resource in KEYS:
        status = ask(connection, "adoption/guard_status", resource)[0]["status"]
        say(f"{resource}: the guard is {status}.")
        well &= status == ("off" if action == "off" else "on")
    return well


# enforce


def enforce(connection: Connection) -> None:
    """Make each key a unique constraint and drop the guard. Raises Refused."""
    wait_for_turn(connection)
    refuse_relatives(connection)
    for resource in KEYS:
        refuse_duplicates(connection, resource)
    for resource in KEYS:
        add_constraint(connection, resource)
    guard(connection, "off")


def wait_for_turn(connection: Connection) -> None:
    """Wait until no other guard or enforce runs: one that was killed may still build its index."""
    # Asked again and again, since an index is not built before those who wait for a lock are done.
    told = False
    while not ask(connection, "adoption/turn")[0]["mine"]:
        if not told:
            say("Waiting for another guard or enforce to end.")
        told = True
        sleep(0.2)


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


def add_constraint(connection: Connection, resource: str) -> None:
    """Build the unique index, unless it is there, and make it a constraint."""
    name = f"{resource}_key"
    index = key_index(connection, resource)
    if index and not index["valid"]:
        say(f"Dropping {name}, which an earlier run left INVALID.")
        ask(connection, f"{resource}/index_drop")
        index = None
    if not index:
        try:
            say(f"Building {name}.")
            ask(connection, f"{resource}/index")
        except psycopg.Error as error:
            if not connection.closed and key_index(connection, resource):
                ask(connection, f"{resource}/index_drop")
            if not isinstance(error, psycopg.errors.UniqueViolation):
                raise
            refuse_duplicates(connection, resource)
            raise
    if not index or not index["is_constraint"]:
        change(connection, resource, [QUERIES[f"{resource}/constraint"]])
    say(f"{name} is a constraint of {resource}.")


def key_index(connection: Connection, resource: str) -> Row | None:
    """The index that has the key constraint's name. Raises Refused if it is another one."""
    name = f"{resource}_key"
    found = ask(connection, "adoption/unique", name)
    if not found:
        return None
    index = found[0]
    if (
        index["table_name"] != resource
        or index["other_kind"]
        or index["columns"] != sorted(KEYS[resource])
    ):
        raise Refused(f"{name} is an index of something else: rename it first")
    return index
