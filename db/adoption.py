"""The way to a unique constraint, but for the merge: report, guard, enforce."""

import csv
import json
import random
import sys
from collections.abc import Iterable, Iterator
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import RawCursor, RawServerCursor
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

from db.pool import Row
from db.queries import QUERIES

# Each resource's key. Departments come first: to merge them makes more employees share a key.
KEYS = {"departments": ("name",), "employees": ("department_id", "name")}

# Milliseconds that a change of a table waits for its lock, at first and at most. All writers queue
# behind it meanwhile, so most tries are short; but only who waits for longer than deadlock_timeout,
# by default 1,000, makes an autovacuum of the table give way. A request waits 2,500 for a lock.
LOCK_TIMEOUT = 200
LOCK_TIMEOUT_MAX = 1500

# Seconds in which a change of a table is tried again.
CHANGE_DEADLINE = 120

GUARD_ON = ("guard", "guard_insert", "guard_update", "guard_always")

# Rows of the report as a table.
WORST = 10


class Refused(Exception):
    """The command did not do what it was asked to; the message says what to do first."""


Connection = psycopg.Connection[DictRow]


def connect(url: str, name: str) -> Connection:
    """Connect for a command, in autocommit and without time limits, as what it waits for decides.

    Raises psycopg.Error.
    """
    return psycopg.connect(
        make_conninfo(
            url,
            application_name=f"onerow {name}",
            client_encoding="UTF8",
            options="-c statement_timeout=0 -c lock_timeout=0 -c timezone=UTC"
            " -c idle_session_timeout=0",
        ),
        autocommit=True,
        cursor_factory=RawCursor,
        row_factory=dict_row,
    )


def ask(connection: Connection, query: str, *parameters: object) -> list[Row]:
    """Run one SQL file of sql/adoption/ and return its rows."""
    cursor = connection.execute(QUERIES[f"adoption/{query}"], parameters)
    return cursor.fetchall() if cursor.description else []


# duplicates


def duplicates(connection: Connection, resource: str) -> Iterator[Row]:
    """Yield the keys that several rows share, the worst first, in bounded memory."""
    # WITH HOLD: the server keeps the rows, on disk if they are many, and no transaction stays open.
    with RawServerCursor(connection, "duplicates", withhold=True) as cursor:
        cursor.execute(QUERIES[f"adoption/{resource}/duplicates"])
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
        print(f"{resource}: every key has one row.")
        return False
    print(f"{resource}: {first['total']:,} keys have {first['surplus']:,} rows too many.")
    for key in ask(connection, "foreign_keys", resource, known_references(resource)):
        print(f"{key['referring']} points at {resource}, too, and merge does not know how to.")
    print(f"{'rows':>8} {'lowest id':>10} {'first':20} {'last':20} {'referring':>9}  key")
    for row, _ in zip(_after(first, rows), range(WORST), strict=False):
        print(
            f"{row['copies']:>8,} {row['id']:>10} {_moment(row['first_created_at']):20}"
            f" {_moment(row['last_created_at']):20} {row['referring']:>9,}  {key_text(row)}"
        )
    if first["total"] > WORST:
        print(f"and {first['total'] - WORST:,} keys more: --format csv or json lists all.")
    return True


def _after(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


COLUMNS = (
    "resource", "key", "copies", "id", "first_created_at", "last_created_at", "referring"
)  # fmt: skip


def _print_csv(rows: Iterable[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_plain(row)[name] for name in COLUMNS] for row in rows)


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
    prefix = f"adoption/{resource}/"
    return [
        path.removeprefix(prefix).removesuffix("/repoint")
        for path in QUERIES
        if path.startswith(prefix) and path.endswith("/repoint")
    ]


def refuse_unknown(foreign_keys: list[Row]) -> None:
    """Raise Refused if there are foreign keys that merge has no SQL files for."""
    if foreign_keys:
        raise Refused(
            "foreign keys that merge has no SQL for, and that would delete rows or refuse:"
            f" {', '.join(key['referring'] for key in foreign_keys)}"
        )


# guard


def refuse_guarded(connection: Connection) -> None:
    """Raise Refused if the guard or a constraint would refuse the rows that undo puts back."""
    for resource in KEYS:
        if ask(connection, "guard_status", resource)[0]["status"] != "off":
            raise Refused("the guard refuses duplicates: run `python -m db guard off` first")
        if _key_index(connection, resource):
            raise Refused(f"{resource}_key refuses duplicates: drop that constraint first")


def guard(connection: Connection, action: str) -> bool:
    """Turn the guard on or off, or neither, and print how it is; return whether that is well."""
    if action == "on":
        guard_on(connection)
    elif action == "off":
        guard_off(connection)
    well = True
    for resource in KEYS:
        status = ask(connection, "guard_status", resource)[0]["status"]
        print(f"{resource}: the guard is {status}.")
        well &= status == ("off" if action == "off" else "on")
    return well


def guard_on(connection: Connection) -> None:
    """Have the server refuse a second row for a key from any writer."""
    ask(connection, "guard_locks")
    for resource in KEYS:
        change(connection, resource, [f"{resource}/{file}" for file in GUARD_ON])


def guard_off(connection: Connection) -> None:
    """Drop all of the guard."""
    for resource in KEYS:
        if ask(connection, "guard_status", resource)[0]["status"] != "off":
            change(connection, resource, [f"{resource}/guard_off"])
    change(connection, "guard_locks", ["guard_locks_drop"])


def change(connection: Connection, table: str, files: list[str]) -> None:
    """Run SQL files that change a table, in one transaction, waiting for its lock in short tries.

    Raises Refused, with who holds the lock, if none succeeded within CHANGE_DEADLINE.
    """
    deadline = monotonic() + CHANGE_DEADLINE
    timeout = LOCK_TIMEOUT
    while True:
        try:
            with connection.transaction():
                ask(connection, "lock_timeout", timeout)
                for file in files:
                    ask(connection, file)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if monotonic() > deadline:
                raise Refused(f"{table} stayed locked: {_blockers(connection, table)}") from None
        timeout = min(2 * timeout, LOCK_TIMEOUT_MAX)
        sleep(random.uniform(0.5, 1) * timeout / 1000)  # the queue behind us drains meanwhile


def _blockers(connection: Connection, table: str) -> str:
    return "; ".join(
        f"process {row['pid']} ({row['application_name']}, {row['state']}, since {row['since']})"
        for row in ask(connection, "blockers", table)
    )


# enforce


def enforce(connection: Connection) -> None:
    """Make each key a unique constraint and drop the guard. Raises Refused."""
    wait_for_turn(connection)
    for resource in KEYS:
        refuse_duplicates(connection, resource)
    for resource in KEYS:
        add_constraint(connection, resource)
    guard_off(connection)
    print("The guard is off: the constraints do its work.")


def wait_for_turn(connection: Connection) -> None:
    """Wait until no other session enforces: one that was killed may still build its index."""
    # Asked again and again, since an index is not built before those who wait for a lock are done.
    told = False
    while not ask(connection, "turn")[0]["mine"]:
        if not told:
            print("Waiting for another enforce to end.", flush=True)
        told = True
        sleep(0.2)


def refuse_duplicates(connection: Connection, resource: str) -> None:
    """Raise Refused, naming keys, if several rows share one."""
    rows = duplicates(connection, resource)
    some = [row for row, _ in zip(rows, range(3), strict=False)]
    if some:
        names = ", ".join(key_text(row) for row in some)
        raise Refused(
            f"{resource} has {some[0]['total']:,} keys with several rows ({names}, ...):"
            " run `python -m db guard on` and `python -m db merge --apply` first"
        )


def add_constraint(connection: Connection, resource: str) -> None:
    """Build the unique index, unless it is there, and make it a constraint."""
    name = f"{resource}_key"
    index = _key_index(connection, resource)
    if index and not index["valid"]:
        _step(
            f"Dropping {name}, which an earlier run left INVALID",
            connection,
            resource,
            "index_drop",
        )
        index = None
    if not index:
        try:
            _step(f"Building {name}", connection, resource, "index")
        except psycopg.Error as error:
            if _key_index(connection, resource):
                ask(connection, f"{resource}/index_drop")
            if not isinstance(error, psycopg.errors.UniqueViolation):
                raise
            refuse_duplicates(connection, resource)
            raise
    if not index or not index["is_constraint"]:
        change(connection, resource, [f"{resource}/constraint"])
    print(f"{name} is a constraint of {resource}.", flush=True)


def _step(title: str, connection: Connection, resource: str, file: str) -> None:
    print(f"{title}.", flush=True)
    ask(connection, f"{resource}/{file}")


def _key_index(connection: Connection, resource: str) -> Row | None:
    """The index that has the key constraint's name. Raises Refused if it is another one."""
    name = f"{resource}_key"
    found = ask(connection, "unique", name)
    if not found:
        return None
    index = found[0]
    if (
        index["table_name"] != resource
        or index["partial"]
        or index["columns"] != sorted(KEYS[resource])
    ):
        raise Refused(f"{name} is an index of something else: rename it first")
    return index
