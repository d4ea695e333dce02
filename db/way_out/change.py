"""Changes of tables that others write to: a short wait for the lock, and again until it is had."""

import os
import random
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, sleep

import psycopg
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row

from db.connection import Row
from db.engine import named
from db.loaders import FiniteTimestamp
from db.queries import QUERIES
from db.session import MEANING, pin
from db.texts import say

Connection = psycopg.Connection[DictRow]

# Milliseconds that a change waits for its lock, at first and at most. All writers queue behind it
# meanwhile, so most tries are short; but only who waits for longer than deadlock_timeout, by
# default 1,000, makes an autovacuum of the table give way. A request waits 2,500 for a lock.
LOCK_TIMEOUT = 200
LOCK_TIMEOUT_MAX = 1500

# Seconds in which a change is tried again.
CHANGE_DEADLINE = 120


class Refused(Exception):
    """The command did not do what it was asked to; the message says what to do first."""


def patient(url: str, name: str) -> str:
    """Return the URL for a command: no time limits, and an error where rows would be hidden."""
    given = conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS") or ""
    return make_conninfo(
        url,
        application_name=f"onerow {name}",
        client_encoding="UTF8",
        options=f"{given} -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0"
        " -c idle_in_transaction_session_timeout=0 -c row_security=off -c timezone=UTC",
    )


def connect(url: str, name: str) -> Connection:
    """Connect for a command, in autocommit. Raises psycopg.Error."""
    connection = psycopg.connect(
        patient(url, name), autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
    )
    if named(connection.pgconn.parameter_status) == "postgresql":
        pin(connection, MEANING)
    connection.adapters.register_loader("timestamptz", FiniteTimestamp)
    return connection


def sql_of(query: str) -> bytes:
    """Return an SQL file's bytes. Raises Refused where a resource's folder does not have it."""
    if query not in QUERIES:
        raise Refused(f"there is no {query}.sql: `python -m db adopt` writes it")
    return QUERIES[query]


def ask(connection: Connection, query: str, *parameters: object) -> list[Row]:
    """Run one SQL file and return its rows."""
    cursor = connection.execute(sql_of(query), parameters)
    return cursor.fetchall() if cursor.description else []


def composed(connection: Connection, query: str, *parameters: object) -> bytes | None:
    """Return the statement that an SQL file puts together, or None where it puts none together.

    Names have no parameters in PostgreSQL, and it knows best how to quote them.
    """
    rows = ask(connection, query, *parameters)
    statement = rows[0]["statement"] if rows else None
    return statement.encode() if statement else None


def change(connection: Connection, tables: Sequence[str], statements: Sequence[bytes]) -> None:
    """Run statements that change tables, in one transaction, tried again until it has its locks.

    Raises Refused, with who holds a lock, if no try succeeded within CHANGE_DEADLINE.
    """
    deadline = monotonic() + CHANGE_DEADLINE
    timeout = LOCK_TIMEOUT
    while True:
        try:
            with connection.transaction():
                ask(connection, "way_out/lock_timeout", timeout)
                for statement in statements:
                    connection.execute(statement)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if monotonic() > deadline:
                holders = ask(connection, "way_out/lock_holders", list(tables))
                who = "; ".join(each["description"] for each in holders) or "nobody any more"
                raise Refused(f"{', '.join(tables)} stayed locked by {who}") from None
        timeout = min(2 * timeout, LOCK_TIMEOUT_MAX)
        sleep(random.uniform(0.5, 1) * timeout / 1000)  # the queue behind us drains meanwhile


def for_each(connection: Connection, names: Iterable[str], work: Callable[[str], object]) -> None:
    """Do the work for each resource; at the end raise Refused if some could not go on."""
    failed = []
    for name in names:
        try:
            work(name)
        except (Refused, psycopg.Error) as error:
            if connection.closed:
                raise
            failed.append(f"{name}: {error}")
    if failed:
        raise Refused("\n".join(failed))


def wait_for_turn(connection: Connection) -> None:
    """Wait until no other init, guard or enforce runs: one that was killed may still build."""
    # Asked again and again, since an index is not built before those who wait for a lock are done.
    told = False
    while not ask(connection, "way_out/turn")[0]["mine"]:
        if not told:
            say("Waiting for another init, guard or enforce to end.")
        told = True
        sleep(0.2)
