"""Doctor's trial: it inserts keys and looks them up, in transactions that are rolled back.

A trigger, a rule or a type may store another key than the one that was sent, or none. The next
request with that key then finds nothing, and makes one more row. No catalog tells this.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8Dumper

from db.doctor.check import ADVICE, FAIL, OK, Check
from db.pipeline import Row
from db.queries import QUERIES
from db.refusal import is_refusal
from db.resources import RESOURCES, Resource, parents
from db.samples import NONE, draw, kinds_of_keys
from db.transaction import KeyNotStored, LateInsert, meaning_of
from db.way_out.change import Session, ask

# Seconds after its transaction's begin within which an insert must come. insert.sql has the same.
INSERT_AGE = 0.05

# How often a key is tried, because other transactions may conflict, or the server may be busy.
ATTEMPTS = 5

LATE = f"no insert within {INSERT_AGE} s of the transaction's begin"
HAS_A_ROW = "not tried, for the key that was drawn has a row"
STORED = "another key is stored than is sent"
NOT_KEPT = "no row is stored: a trigger, a rule or a policy keeps it away"

BEGIN = b"BEGIN ISOLATION LEVEL SERIALIZABLE"

Statement = tuple[bytes, tuple[Any, ...]]

AGE: Statement = (QUERIES["way_out/doctor/age"], ())


class Tried(NamedTuple):
    """The outcome of one attempt."""

    key: Row  # the key as it was sent
    inserted: Row | None  # the row that the insert returned
    age: float  # seconds from the transaction's begin to the end of the insert
    found: Row | None  # the row that the lookup returned


class Trouble(Exception):
    """A key was not found as it was sent. The message is that of doctor's line."""

    def __init__(self, detail: str, level: str = FAIL) -> None:
        super().__init__(detail)
        self.level = level


def trial(connection: Session, resource: Resource) -> Iterator[Check]:
    """Insert keys of several kinds, look them up, and yield a line for each outcome."""
    subject = f"{resource.name} trial"
    connection.adapters.register_dumper(int, Int8Dumper)  # as on the service's connections
    kinds = kinds_of_keys(resource)
    kept = 0
    told: dict[tuple[str, str], list[str]] = {}  # the kinds of keys, by level and detail
    for kind in kinds:
        try:
            _try(connection, resource, kind)
            kept += 1
            continue
        except Trouble as trouble:
            said = trouble.level, str(trouble)
        except psycopg.Error as error:
            why = _primary(error)
            said = (ADVICE, f"refused with 422, {why}") if is_refusal(error) else (FAIL, why)
        told.setdefault(said, []).append(kind)
    for (level, detail), which in told.items():
        yield Check(level, subject, f"{', '.join(which)}: {detail}")
    if kept:
        detail = (
            f"{kept} of {len(kinds)} keys, inserted and rolled back, were found again as they were"
            " sent (triggers have seen them, and ids are used up)"
        )
        yield Check(OK, subject, detail)


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0]


def _try(connection: Session, resource: Resource, kind: str) -> None:
    """Insert one key and look it up. Raises Trouble or psycopg.Error."""
    for attempt in range(ATTEMPTS):
        try:
            tried = _insert(connection, resource, kind)
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
            continue
        except LateInsert:
            continue
        finally:
            connection.rollback()
        if tried.inserted or tried.found or tried.age < INSERT_AGE:
            break
    else:
        raise Trouble(LATE, ADVICE)
    inserted, found = tried.inserted, tried.found
    if not inserted and found:
        raise Trouble(HAS_A_ROW, ADVICE)
    if not inserted:
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
    return any(row.get(column, value) != value for column, value in key.items())


def _insert(connection: Session, resource: Resource, kind: str) -> Tried:
    """Insert one key in a transaction, and look it up."""
    start = [(BEGIN, ())]
    values = _values(connection, resource, kind, start)
    key = values[: len(resource.key)]
    insert, select = QUERIES[f"{resource.name}/insert"], QUERIES[f"{resource.name}/select"]
    immediate: Statement = (QUERIES["way_out/doctor/constraints_immediate"], ())
    *_, inserted, then, _, found = _send(
        connection, [*start, (insert, values), AGE, immediate, (select, key)]
    )
    names = [field.name for field in resource.key]
    return Tried(dict(zip(names, key, strict=True)), inserted, _age(then), found)


def _values(
    connection: Session, resource: Resource, kind: str, start: list[Statement]
) -> tuple[Any, ...]:
    """Return the parameters of insert.sql, with a key of this kind.

    A field that refers to another table gets the id of a row there. If a parent must be made first,
    the statements in `start` are sent with it, and `start` is emptied. Raises Trouble if there is
    no row to refer to.
    """
    others = parents(RESOURCES, resource.name)
    referring = ask(connection, "way_out/doctor/referring", resource.table)
    values: list[Any] = []
    for field in resource.fields:
        is_key = field in resource.key
        if field.optional and (kind == NONE or not is_key):
            values.append(None)
        elif others.get(field.name) not in (None, resource.name):
            values.append(_parent(connection, RESOURCES[others[field.name]], start))
        elif field.name in {row["name"] for row in referring}:
            row = _first(connection, resource)
            if row is None:
                raise Trouble(f"not tried: no row has a {field.name} that could be taken", ADVICE)
            values.append(row[field.name])
        else:
            drawn = draw(field)
            values.append(drawn.get(kind, next(iter(drawn.values()))))
    return tuple(values)


def _parent(connection: Session, resource: Resource, start: list[Statement]) -> Any:
    """Return the id of a row of a parent, or make a row, behind the statements in `start`.

    Raises LateInsert if that insert came too late.
    """
    row = _first(connection, resource)
    if row is None:
        values = _values(connection, resource, "", start)
        make: Statement = (QUERIES[f"{resource.name}/insert"], values)
        *_, row = _send(connection, [*start, make])
        start.clear()
        if row is None:
            raise LateInsert
    return row["id"]


def _first(connection: Session, resource: Resource) -> Row | None:
    """Return the row with the lowest id, or None if the table is empty."""
    parameters = (None, 1, *(None for _ in resource.filters))
    (row,) = _send(connection, [(QUERIES[f"{resource.name}/list"], parameters)])
    return row


def _age(row: Row | None) -> float:
    assert row is not None  # a SELECT of functions
    age: float = row["age"]
    return age


def _send(connection: Session, statements: list[Statement]) -> list[Row | None]:
    """Send statements at once, and return the first row of each. Raises psycopg.Error.

    They are sent at once because an insert must come soon after BEGIN.
    """
    cursors = []
    failure = None
    # The statements behind one that failed fail with PipelineAborted. Only the first error counts.
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
