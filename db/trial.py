"""Doctor's trial: keys inserted and looked up again, in transactions that are rolled back.

It is what no catalog tells: a trigger, a rule or a type may store another key than the one sent, or
none, so that the next request with this key finds nothing and makes one more row.
"""

from collections.abc import Iterator
from contextlib import suppress
from secrets import token_hex
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8Dumper

from db.adoption import KEYS
from db.change import Connection
from db.check import ADVICE, FAIL, OK, Check
from db.pool import Row
from db.queries import QUERIES
from db.refusal import is_refusal
from db.transaction import KeyNotStored, LateInsert, meaning_of

# Seconds from a transaction's begin in which its insert must come: in insert.sql.
INSERT_AGE = 0.05

# Times that a key is tried: others' transactions may conflict, or the server be busy for a moment.
ATTEMPTS = 5

LATE = f"no insert within {INSERT_AGE} s of the transaction's begin"
STORED = "another key is stored than is sent"
NOT_KEPT = "no row is stored: a trigger, a rule or a policy keeps it away"

BEGIN = b"BEGIN ISOLATION LEVEL SERIALIZABLE"

Statement = tuple[bytes, tuple[Any, ...]]


class Tried(NamedTuple):
    """What came of an attempt."""

    key: Row  # as it was sent
    inserted: Row | None
    age: float  # of the transaction, in seconds, when the insert was done
    found: Row | None


class Trouble(Exception):
    """What became of a key, as a line of doctor's says it."""

    def __init__(self, detail: str, level: str = FAIL) -> None:
        super().__init__(detail)
        self.level = level


def names() -> dict[str, str]:
    """Return names that no row has and that are easily stored as others, by what is in them."""
    mark = f"doctor {token_hex(4)}"
    return {
        "a plain name": mark,
        "blanks around it": f" {mark}\t ",
        "capitals": f"{mark} Ada",
        "accents": f"{mark} é e\N{COMBINING ACUTE ACCENT}",  # composed, and decomposed
        "255 characters": f"{mark} {'x' * 255}"[:255],
    }


def trial(connection: Connection, resource: str) -> Iterator[Check]:
    """Try each name as, or as a part of, a key of the resource; yield what is to be said."""
    subject = f"{resource} trial"
    connection.adapters.register_dumper(int, Int8Dumper)  # as the service's own
    tried = names()
    kept = 0
    told: dict[tuple[str, str], list[str]] = {}  # the names by level and what is to be said
    for what, name in tried.items():
        try:
            _try(connection, resource, name)
            kept += 1
            continue
        except Trouble as trouble:
            said = trouble.level, str(trouble)
        except psycopg.Error as error:
            why = _primary(error)
            said = (ADVICE, f"refused with 422, {why}") if is_refusal(error) else (FAIL, why)
        told.setdefault(said, []).append(what)
    for (level, detail), which in told.items():
        yield Check(level, subject, f"{', '.join(which)}: {detail}")
    if kept:
        detail = (
            f"{kept} of {len(tried)} keys, inserted and rolled back, were found again as they were"
            " sent (triggers have seen them, and ids are used up)"
        )
        yield Check(OK, subject, detail)


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0]


def _try(connection: Connection, resource: str, name: str) -> None:
    """Insert one key and look it up. Raises Trouble, or an error of psycopg's."""
    for attempt in range(ATTEMPTS):
        try:
            tried = _insert(connection, resource, name)
        except (errors.SerializationFailure, errors.DeadlockDetected):
            if attempt + 1 == ATTEMPTS:
                raise
            continue
        except errors.InvalidTextRepresentation as error:
            meaning = meaning_of(error)
            if isinstance(meaning, KeyNotStored):
                raise Trouble(STORED if meaning.field else NOT_KEPT) from None
            if not isinstance(meaning, LateInsert):
                raise
            if attempt + 1 == ATTEMPTS:
                raise Trouble(LATE, ADVICE) from None
            continue
        finally:
            connection.rollback()
        if tried.inserted or tried.age < INSERT_AGE:
            break
    inserted, found = tried.inserted, tried.found
    if not inserted:
        if tried.age >= INSERT_AGE:
            raise Trouble(LATE, ADVICE)
        raise Trouble(NOT_KEPT)
    if _differs(inserted, tried.key):
        raise Trouble(STORED)
    if not found or found["id"] != inserted["id"]:
        raise Trouble("the row that was inserted is not found again")
    if _differs(found, tried.key):
        raise Trouble("another key is found than was sent")
    if found["copies"] > 1:
        raise Trouble(f"{found['copies']} rows are stored")


def _differs(row: Row, key: Row) -> bool:
    return any(row[column] != value for column, value in key.items())


def _insert(connection: Connection, resource: str, name: str) -> Tried:
    """Insert one key in a transaction, and look it up."""
    begin: Statement = (BEGIN, ())
    age: Statement = (QUERIES["adoption/doctor/age"], ())
    key: Row = {"name": name}
    if "department_id" in KEYS[resource]:
        # One that is there, so that all can be sent at once, or one made for it.
        (department,) = _send(connection, [(QUERIES["departments/list"], (-(2**63), 1, None))])
        if not department:
            make: Statement = (QUERIES["departments/insert"], (name,))
            _, department, made = _send(connection, [begin, make, age])
            begin = age
            if not department:
                return Tried(key, None, _age(made), None)
        key = {"department_id": department["id"], **key}
    insert, select = QUERIES[f"{resource}/insert"], QUERIES[f"{resource}/select"]
    immediate: Statement = (QUERIES["adoption/doctor/constraints_immediate"], ())
    sent = tuple(key.values())
    _, inserted, then, _, found = _send(
        connection, [begin, (insert, sent), age, immediate, (select, sent)]
    )
    return Tried(key, inserted, _age(then), found)


def _age(row: Row | None) -> float:
    assert row is not None  # a SELECT of functions
    age: float = row["age"]
    return age


def _send(connection: Connection, statements: list[Statement]) -> list[Row | None]:
    """Run statements, sent at once since an insert must come soon; return the first row of each."""
    cursors = []
    failure = None
    # What was sent after a statement that failed fails too, and says no more than that.
    with suppress(errors.PipelineAborted), connection.pipeline() as pipeline:
        try:
            for statement, parameters in statements:
                cursors.append(connection.execute(statement, parameters, prepare=False))
            pipeline.sync()
        except psycopg.Error as error:
            failure = error
    if failure:
        raise failure
    return [cursor.fetchone() if cursor.description else None for cursor in cursors]
