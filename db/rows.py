"""What a request asks of the database: get or create a row, look one up, list some, delete one."""

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple

from db.connection import Connection, Row, Statement
from db.pool import Pool
from db.queries import QUERIES
from db.transaction import LateInsert, transact

Values = Sequence[str | None]


class Outcome(NamedTuple):
    """What get_or_create() found or made."""

    row: Row
    copies: int  # how many rows share the key; more than 1 only where legacy rows do
    created: bool


class Retired(NamedTuple):
    """A row that a merge moved away."""

    kept: str  # the id of the row that it kept instead


# The names under which statements are prepared. PostgreSQL tells them apart by the first 63 bytes
# alone, and a resource's name may be as long, so a number comes first.
_names: dict[str, bytes] = {}


def statement(
    connection: Connection, query: str, values: Values, *, prepared: bool = True
) -> Statement:
    """Return a file of QUERIES as it is for this connection's engine, with its parameters."""
    of_engine = f"{connection.engine.folder}{query}"
    if of_engine in QUERIES:
        query = of_engine
    if not prepared:
        return Statement(QUERIES[query], values)
    if query not in _names:
        _names[query] = f"{len(_names)} {query}".encode("ascii", "replace")[:63]
    return Statement(QUERIES[query], values, _names[query])


async def get_or_create(
    connection: Connection, resource: str, key: Values, attributes: Values
) -> Outcome:
    """Return the row of `key`, creating it with these attributes if there is none.

    select.sql looks for it, and insert.sql makes no row where that has found one. Raises LateInsert
    if the transaction had become too old to insert, and what transact() understands.
    """
    found, inserted = await connection.serializable(
        statement(connection, f"{resource}/select", key),
        statement(connection, f"{resource}/insert", [*key, *attributes]),
    )
    if found:
        return Outcome(found[0], found[0].pop("copies"), created=False)
    if inserted:
        return Outcome(inserted[0], 1, created=True)
    raise LateInsert


async def delete(connection: Connection, resource: str, id_: str) -> bool:
    """Delete the row with this id; tell whether there was one."""
    (deleted,) = await connection.serializable(statement(connection, f"{resource}/delete", [id_]))
    return bool(deleted)


async def select(
    connection: Connection, query: str, values: Values, *, prepared: bool = True
) -> list[Row]:
    """Return the rows of one reading SQL file."""
    (rows,) = await connection.run(statement(connection, query, values, prepared=prepared))
    return rows


async def look_up(pool: Pool, resource: str, id_: str, seconds: float) -> Row | Retired | None:
    """Return the row with this id, or which one a merge kept in its place, or None.

    `seconds` bounds all queries together; the errors are those of transact().
    """
    deadline = monotonic() + seconds
    for _ in range(2):  # the merge may be undone between the two queries
        get = partial(select, query=f"{resource}/get", values=[id_])
        if rows := await transact(pool, get, seconds=deadline - monotonic()):
            return rows[0]
        kept = partial(select, query="kept", values=[resource, id_])
        if rows := await transact(pool, kept, seconds=deadline - monotonic()):
            return Retired(str(rows[0]["kept"]))
    return None
