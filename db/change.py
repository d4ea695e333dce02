"""Changes of tables that others write to: a short wait for the lock, and again until it is had."""

import os
import random
from time import monotonic, sleep

import psycopg
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row

from db.engine import ENGINES, discover, named
from db.pool import FiniteTimestamp, Row
from db.queries import QUERIES
from db.session import MEANING, pin

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


def ask(connection: Connection, query: str, *parameters: object) -> list[Row]:
    """Run one SQL file and return its rows."""
    cursor = connection.execute(QUERIES[query], parameters)
    return cursor.fetchall() if cursor.description else []


def change(connection: Connection, table: str, statements: list[bytes]) -> None:
    """Run statements that change a table, in one transaction, tried again until it has its lock.

    Raises Refused, with who holds the lock, if no try succeeded within CHANGE_DEADLINE.
    """
    deadline = monotonic() + CHANGE_DEADLINE
    timeout = LOCK_TIMEOUT
    while True:
        try:
            with connection.transaction():
                ask(connection, "adoption/lock_timeout", timeout)
                for statement in statements:
                    connection.execute(statement)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if monotonic() > deadline:
                raise Refused(f"{table} stayed locked by {_holders(connection, table)}") from None
        timeout = min(2 * timeout, LOCK_TIMEOUT_MAX)
        sleep(random.uniform(0.5, 1) * timeout / 1000)  # the queue behind us drains meanwhile


def _holders(connection: Connection, table: str) -> str:
    holders = ask(connection, "adoption/lock_holders", table)
    return "; ".join(holder["description"] for holder in holders) or "nobody any more"


def apply_schema(database_url: str, engine_name: str | None = None) -> None:
    """Run schema.sql, or the engine's own, which leaves alone what is there already.

    Raises Refused if the tables stay locked, or psycopg.Error if the database cannot be reached or
    the role lacks the rights.
    """
    engine = ENGINES[engine_name or discover(database_url)]
    with connect(database_url, "init") as connection:
        if engine.folder:
            connection.execute(engine.schema.read_bytes())
            return
        # Two starts at once would trip over each other's CREATE TABLE IF NOT EXISTS. And CREATE
        # INDEX IF NOT EXISTS locks the table even where it has nothing to do.
        turn = b"SELECT pg_advisory_xact_lock(hashtextextended('onerow schema'::text, 0::bigint))"
        change(connection, "departments", [turn, engine.schema.read_bytes()])
