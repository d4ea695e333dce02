"""Changes tables that others write to: each try waits only a short time for its locks."""

import os
import random
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, sleep

import psycopg
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row

from db.engine import named
from db.loaders import load_as_text
from db.pipeline import Row
from db.queries import QUERIES
from db.session import MEANING, pin
from db.texts import say

Session = psycopg.Connection[DictRow]

# Milliseconds for which a change waits for its locks: at the first try, and at most. All writers of
# the table queue behind a waiting change, and a request gives up after 2,500. So the tries are
# short. But an autovacuum of the table gives way only to one that waits for longer than
# deadlock_timeout, which is 1,000 by default.
LOCK_TIMEOUT = 200
LOCK_TIMEOUT_MAX = 1500

# Seconds after which a change is not tried again. A transaction that holds its locks for longer
# needs somebody's attention.
CHANGE_DEADLINE = 120


class Refused(Exception):
    """The command did not do what it was asked to. The message says what to do first."""


def with_cause(error: BaseException) -> str:
    """Return what an error says, and what its cause says, without a line of the statement."""
    if isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
        return with_cause(error.__cause__)  # the error around it says what the service needs
    told = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"{told}: {error.diag.message_hint or 'run this as the owner of the tables'}"
    cause = f" ({with_cause(error.__cause__)})" if error.__cause__ else ""
    return f"{told or error}{cause}"


def with_remedy(error: BaseException) -> str:
    """Return what with_cause() does and, where a file names what is gone, what makes it anew."""
    remedy = ""
    if isinstance(error, psycopg.errors.UndefinedColumn):
        remedy = ": run the same `python -m db adopt` again"
    elif isinstance(error, psycopg.errors.UndefinedTable):
        remedy = ": run `python -m db init`, or the same `python -m db adopt` again"
    return with_cause(error) + remedy


def patient(url: str, name: str) -> str:
    """Return the URL for a command's session, without time limits.

    row_security is off, so that a statement fails where a policy would hide rows from it.
    """
    given = conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS") or ""
    return make_conninfo(
        url,
        application_name=f"onerow {name}",
        client_encoding="UTF8",
        options=f"{given} -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0"
        " -c idle_in_transaction_session_timeout=0 -c row_security=off -c timezone=UTC",
    )


def connect(url: str, name: str) -> Session:
    """Connect for a command, in autocommit, with the settings of db.session.

    Raises psycopg.Error.
    """
    connection = psycopg.connect(
        patient(url, name), autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
    )
    if named(connection.pgconn.parameter_status) == "postgresql":
        pin(connection, MEANING)
    load_as_text(connection.adapters)
    return connection


def sql_of(query: str) -> bytes:
    """Return an SQL file's bytes. Raises Refused if a resource's folder lacks it."""
    if query not in QUERIES:
        raise Refused(f"there is no {query}.sql: `python -m db adopt` writes it")
    return QUERIES[query]


def ask(connection: Session, query: str, *parameters: object) -> list[Row]:
    """Run one SQL file, as "way_out/kind", and return its rows.

    Raises Refused if there is no such file, or psycopg.Error.
    """
    cursor = connection.execute(sql_of(query), parameters)
    return cursor.fetchall() if cursor.description else []


def composed(connection: Session, query: str, *parameters: object) -> bytes | None:
    """Return the statement that an SQL file returns, or None if it returns none.

    In PostgreSQL no parameter can stand for a name, so the file puts the statement together, and
    PostgreSQL quotes the names.
    """
    rows = ask(connection, query, *parameters)
    statement = rows[0]["statement"] if rows else None
    return statement.encode() if statement else None


def drop_index(connection: Session, table: str, name: str) -> None:
    """Drop an index of a table while writers go on, if there is one of this name."""
    if statement := composed(connection, "way_out/drop_index", table, name):
        connection.execute(statement)


def change(connection: Session, tables: Sequence[str], statements: Sequence[bytes]) -> None:
    """Run statements that change tables, in one transaction, which is tried until it has its locks.

    Raises Refused, which names the sessions that hold a lock, after CHANGE_DEADLINE.
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
        sleep(random.uniform(0.5, 1) * timeout / 1000)  # the writers that queued go on meanwhile


def for_each(connection: Session, names: Iterable[str], work: Callable[[str], object]) -> None:
    """Do the work for each resource, and at the end raise Refused if it failed for some."""
    failed = []
    for name in names:
        try:
            work(name)
        except (Refused, psycopg.Error) as error:
            if connection.closed:
                raise
            failed.append(f"{name}: {with_remedy(error)}")
    if failed:
        raise Refused("\n".join(failed))


def wait_for_turn(connection: Session) -> None:
    """Wait until no other init, guard or enforce runs.

    After a kill -9 of such a command its session may still be building an index.
    """
    # This asks again and again and does not wait for the lock, because CREATE INDEX CONCURRENTLY
    # waits for all transactions that wait for a lock.
    told = False
    while not ask(connection, "way_out/turn")[0]["mine"]:
        if not told:
            say("Waiting for another init, guard or enforce to end.")
        told = True
        sleep(0.2)
