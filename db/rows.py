"""What a request asks of the database: get or create a row, look one up, list some, delete one."""

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple

from psycopg import errors

from db.connection import Connection, array_of
from db.ours import check_merged
from db.pipeline import Row, Statement
from db.pool import Pool
from db.queries import QUERIES
from db.transaction import Attempts, LateInsert, TableLocked, transact

Values = Sequence[str | None]

# All writers of a table wait behind a transaction that waits for a lock on the whole of it. So it
# waits briefly: an index build or somebody's open transaction may be in the way for minutes.
SHORT_LOCK_TIMEOUT = Statement(b"SET LOCAL lock_timeout = '100ms'")


class Outcome(NamedTuple):
    """What get_or_create() found or made."""

    row: Row
    copies: int  # how many rows share the key; more than 1 only where legacy rows do
    created: bool


class Retired(NamedTuple):
    """A row that a merge moved away."""

    kept: str  # the id of the row that it kept instead


def statement(
    connection: Connection, query: str, values: Values, *, prepared: bool = True
) -> Statement:
    """Return a file of QUERIES as it is for this connection's engine, with its parameters."""
    sql = QUERIES.get(f"{connection.engine.folder}{query}") or QUERIES[query]
    return Statement(sql, values, query.encode() if prepared else b"")


async def get_or_create(
    connection: Connection, resource: str, key: Values, attributes: Values
) -> Outcome:
    """Return the row of `key`, creating it with these attributes if there is none.

    insert.sql makes no row where select.sql has found one, so both are sent at once. Raises
    LateInsert if the transaction was too old to insert, and errors that transact() understands.
    """
    found, inserted = await connection.serializable(
        statement(connection, f"{resource}/select", key),
        statement(connection, f"{resource}/insert", [*key, *attributes]),
        stop_at_first_row=True,
    )
    if found:
        return Outcome(found[0], found[0].pop("copies"), created=False)
    if inserted:
        return Outcome(inserted[0], 1, created=True)
    raise LateInsert


async def get_or_create_many(
    connection: Connection,
    resource: str,
    width: int,
    items: Sequence[Values],
    attempts: Attempts,
    lock_after: int,
) -> list[Outcome]:
    """Return the row of each item, creating those that are missing, all of them or none.

    The first `width` values of an item are its key, and the others its attributes. Where items
    share a key, the first creates the row. After `lock_after` failed attempts, every second attempt
    keeps all other writers out of the table, but not behind a pooler. The errors are those of
    get_or_create(), and TableLocked.
    """
    if not items:
        return []
    failed = len(attempts.retried)
    # Behind a pooler a transaction begins with its settings, which take the snapshot before the
    # lock.
    lock = failed >= lock_after and (failed - lock_after) % 2 == 0 and not connection.set_config
    columns = [array_of(column) for column in zip(*items, strict=True)]
    first = [SHORT_LOCK_TIMEOUT, statement(connection, f"{resource}/lock", [])] if lock else []
    try:
        *_, found, inserted = await connection.serializable(
            *first,
            statement(connection, f"{resource}/select_many", columns[:width]),
            statement(connection, f"{resource}/insert_many", [*columns, str(lock)]),
        )
    except errors.LockNotAvailable as error:
        if lock:
            raise TableLocked from error
        raise
    new = iter(inserted)
    outcomes = []
    for row in found:
        if copies := row.pop("copies"):
            outcomes.append(Outcome(row, copies, created=False))
        else:
            row = next(new)
            outcomes.append(Outcome(row, 1, created=row.pop("copies") == 1))
    return outcomes


async def delete(connection: Connection, resource: str, id_: str) -> bool:
    """Delete the row with this id; tell whether there was one."""
    (deleted,) = await connection.serializable(statement(connection, f"{resource}/delete", [id_]))
    return bool(deleted)


async def read(
    connection: Connection, query: str, values: Values, *, prepared: bool = True
) -> list[Row]:
    """Run an SQL file that only reads, and return its rows."""
    (rows,) = await connection.run(statement(connection, query, values, prepared=prepared))
    return rows


async def look_up(pool: Pool, resource: str, id_: str, seconds: float) -> Row | Retired | None:
    """Return the row with this id, or the id that a merge kept in its place, or None.

    `seconds` bounds all queries together; the errors are those of transact().
    """
    deadline = monotonic() + seconds
    for _ in range(2):  # the merge may be undone between the two queries
        get = partial(read, query=f"{resource}/get", values=[id_])
        if rows := await transact(pool, get, seconds=deadline - monotonic()):
            return rows[0]
        kept = partial(_kept, resource=resource, id_=id_)
        if rows := await transact(pool, kept, seconds=deadline - monotonic()):
            return Retired(str(rows[0]["kept"]))
    return None


async def _kept(connection: Connection, resource: str, id_: str) -> list[Row]:
    # The check's query is prepared, because planning it takes longer than all else of a look-up.
    await check_merged(connection, prepared=True)
    return await read(connection, "kept", [resource, id_])
