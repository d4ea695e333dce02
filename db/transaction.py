"""Transactions, each of which ends in one of three ways: a commit, a clear refusal, the deadline.

This module alone decides after which of PostgreSQL's failures a transaction runs again.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout, TooManyRequests

from db.connection import Connection
from db.pool import Pool
from db.refusal import is_refusal

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]

# Full jitter: a pause is drawn from 0 to PAUSE * 2^retries seconds, at most PAUSE_CAP. PAUSE is
# about what a transaction takes. The cap keeps some twenty attempts in the default deadline even
# where every one of them pauses for the longest time.
PAUSE = 0.002
PAUSE_CAP = 0.25

# Stands for the SQLSTATE where the connection broke before the server could send one.
CONNECTION_FAILURE = "08006"

# After this many failures of one kind in a row it is in vain to go on. If the database is too far
# away for PIPELINE=0, every insert is late; if a writer locks the table, only a few are. If a
# trigger changes the key into one that exists, every attempt violates the key's constraint; if
# another creator was first, only one does.
IN_VAIN = 10

# What the end of insert.sql says where it fails. PostgreSQL puts this text, in quotation marks, at
# the end of a message in the server's language. A mark is one character, and in French one with a
# space. A field's name may have any characters.
SAYS = re.compile(
    r"\W(?P<space>\s?)(?:(?P<late>the insert came too late)|(?P<none>the table kept no row)"
    r"|the table stored no such row for item (?P<item>\d+)"
    r"|the table (?:stored another|would not find this) (?P<field>.+?))(?P=space)\W\Z",
    re.DOTALL,
)

# What SchemaMissing says where the tables are there. Doctor names a policy that is in the way, too.
RIGHT_MISSING = (
    "The role lacks a right: `python -m db doctor` says which, and `python -m db roles` gives it."
)


@dataclass
class Attempts:
    """What became of the attempts of one request."""

    begun: int = 0
    retried: list[str] = field(default_factory=list)  # the SQLSTATE of each that was run again


class Unavailable(Exception):
    """The database could not serve this request."""

    def __str__(self) -> str:
        return self.__doc__ or ""


class InsertTooLate(Unavailable):
    """Inserts came over 50 ms after BEGIN: PIPELINE=0 and far away, a slow trigger, or busy."""


class AttemptsExhausted(Unavailable):
    """No attempt succeeded before the deadline."""


class QueueFull(Unavailable):
    """Too many requests are waiting for a database connection."""


class NoConnection(Unavailable):
    """No database connection could be had before the deadline."""


class ReadOnlyDatabase(Unavailable):
    """The database is read-only."""


class SettingsLost(Unavailable):
    """The session lacks its settings: behind a pooler the service needs POOLER=1."""


class NotReplicated(Unavailable):
    """The wait for a synchronous standby was cancelled: it may not have what was committed."""


class ServerFault(Unavailable):
    """The database failed, by no fault of the request; the log of the service says how."""


class SchemaMissing(Unavailable):
    """The tables, or rights on them, are missing: run `python -m db init`."""

    def __str__(self) -> str:
        denied = isinstance(self.__cause__, errors.InsufficientPrivilege)
        about = f" It is about {', '.join(self.args)}." if self.args else ""
        return f"{RIGHT_MISSING if denied else super().__str__()}{about}"


class MergedNotOurs(Unavailable):
    """The table merged is somebody else's: `python -m db doctor` says whose."""


class LateInsert(Exception):
    """The transaction had become too old to insert, and did not."""

    sqlstate = "late"  # for the metrics, because the server sends none


class TableLocked(Exception):
    """A transaction would have had to wait too long for the lock on a whole table."""

    sqlstate = errors.LockNotAvailable.sqlstate


class KeyNotStored(Exception):
    """The table would store another value than it was sent for this field of the key."""

    def __init__(self, field: str, item: int | None = None) -> None:
        super().__init__(field, item)
        self.field = field  # "" if it keeps no row at all, or if only the item is known
        self.item = item  # the place in an array, from 0


Failure = psycopg.Error | LateInsert | TableLocked


async def transact(
    pool: Pool,
    work: Work[T],
    *,
    seconds: float,
    attempts: Attempts | None = None,
    key_constraint: str | None = None,
) -> T:
    """Run `work` on a connection, and return its result: what it has done is committed by then.

    `work` is a whole transaction, or only reads. It runs again after the failures that _retryable()
    names. A connection that broke in COMMIT may have committed, so `work` must be idempotent.

    `seconds` bounds all attempts and the pauses between them; `attempts` is filled as they go.

    Raises Unavailable, KeyNotStored, or whatever else `work` raises.
    """
    attempts = attempts or Attempts()
    deadline = monotonic() + seconds
    failure: Failure | None = None
    while True:
        try:
            connection = await pool.take(deadline - monotonic(), again=failure is not None)
        except PoolTimeout as error:
            if failure is None:
                raise NoConnection from error
            raise _exhausted(failure) from failure
        except TooManyRequests as error:
            raise QueueFull from error
        connection.deadline = deadline
        connection.replicated = True
        # The try stands around the whole transaction: COMMIT fails with 40001 too.
        try:
            attempts.begun += 1
            if connection.unpinned is not None:
                await connection.set_up()
            result = await work(connection)
            if not connection.replicated:
                # COMMIT reports success. Only a warning tells that the standby lacks it.
                raise NotReplicated
            pool.served += 1
            return result
        except (psycopg.Error, LateInsert, TableLocked) as error:
            failure = _retryable(error, failure, key_constraint, broken=connection.closed)
        finally:
            connection.deadline = inf
            pool.give_back(connection)

        retries = len(attempts.retried)
        pause = random.uniform(0, min(PAUSE_CAP, PAUSE * 2**retries))
        sqlstate = failure.sqlstate or CONNECTION_FAILURE
        in_vain = [*attempts.retried, sqlstate][-IN_VAIN:] == [sqlstate] * IN_VAIN
        if in_vain and isinstance(failure, errors.UniqueViolation):
            raise failure
        # On a busy machine ten inserts may be late, too, so attempts go on for half of the time.
        late = in_vain and isinstance(failure, LateInsert) and monotonic() + seconds / 2 > deadline
        if late or monotonic() + pause >= deadline:
            raise _exhausted(failure) from failure
        attempts.retried.append(sqlstate)
        await asyncio.sleep(pause)


def _retryable(
    error: Failure,
    before: Failure | None,
    key_constraint: str | None,
    *,
    broken: bool,
) -> Failure:
    """Return a failure after which the work runs again; raise any other error, by what it means.

    Such failures are a serialization failure, a deadlock, a late insert, a table that is locked, a
    broken connection, a column that has changed its type, and a violation of a unique constraint:
    of `key_constraint` always, of another one unless the attempt `before` ended with one, too, and
    of none if `key_constraint` is None. `broken` tells whether the connection broke.
    """
    match error:
        case (
            errors.SerializationFailure()
            | errors.DeadlockDetected()
            | errors.StatementCompletionUnknown()  # of a COMMIT, from a distributed engine
            | LateInsert()
            | TableLocked()
        ):
            return error
        case errors.InvalidTextRepresentation():
            meaning = meaning_of(error)
            if isinstance(meaning, LateInsert):
                return meaning
            raise meaning from error.__cause__
        case errors.UniqueViolation():
            if key_constraint is None:
                raise error
            # The row of another creator may be in the way by any unique constraint, and the next
            # attempt finds it. If it does not, the value belongs to a row of another key.
            again = isinstance(before, errors.UniqueViolation)
            if again and error.diag.constraint_name != key_constraint:
                raise error
            return error
        case errors.FeatureNotSupported():
            if error.diag.source_function != "RevalidateCachedQuery":
                raise Unavailable from error  # SERIALIZABLE on a standby, for one
            return error  # a column has changed its type since the statement was prepared
        case errors.ReadOnlySqlTransaction():
            raise ReadOnlyDatabase from error
        case errors.UndefinedTable() | errors.UndefinedColumn() | errors.InsufficientPrivilege():
            Connection.search_paths.clear()
            raise SchemaMissing from error
    if broken:
        return error
    if isinstance(error, psycopg.OperationalError) and not is_refusal(error):
        raise Unavailable from error
    raise error


def interactive(work: Work[T]) -> Work[T]:
    """Wrap `work` in psycopg's own BEGIN and COMMIT, at SERIALIZABLE, for transact().

    It is for commands whose next statement depends on what the last one has found.
    """

    async def transaction(connection: Connection) -> T:
        async with connection.transaction():
            await connection.apply_settings()
            result = await work(connection)
            if connection.closed:
                # psycopg leaves the block without COMMIT, and without an error.
                raise psycopg.OperationalError("the connection broke before COMMIT")
        return result

    return transaction


def _exhausted(failure: Exception) -> Unavailable:
    return InsertTooLate() if isinstance(failure, LateInsert) else AttemptsExhausted()


def meaning_of(error: errors.InvalidTextRepresentation) -> Exception:
    """Return what the end of insert.sql means: LateInsert, KeyNotStored, or an error as it is."""
    said = SAYS.search(error.diag.message_primary or "")
    # An error with a context is a trigger's, whose words may be the client's.
    if said is None or error.diag.context:
        return error
    if said["late"]:
        return LateInsert()
    return KeyNotStored(said["field"] or "", int(said["item"]) - 1 if said["item"] else None)
