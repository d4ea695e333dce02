"""The SQL files, and the one thing the service is about: get or create a row."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psycopg

from db.pool import Connection, Row

ROOT = Path(__file__).parent.parent

# "employees/select" to the file's bytes, which is what PostgreSQL gets.
QUERIES = {
    path.relative_to(ROOT / "sql").with_suffix("").as_posix(): path.read_bytes()
    for path in sorted((ROOT / "sql").rglob("*.sql"))
}


class Outcome(NamedTuple):
    """What get_or_create() found or made."""

    row: Row
    copies: int  # how many rows share the key; more than 1 only where legacy rows do
    created: bool


async def get_or_create(
    connection: Connection, resource: str, key: tuple[int | str, ...]
) -> Outcome:
    """Return the row of `key`, creating it if there is none.

    One row per key holds only inside a SERIALIZABLE transaction that has committed: call it
    through db.transaction.serializable().
    """
    found = await (await connection.execute(QUERIES[f"{resource}/select"], key)).fetchone()
    if found is not None:
        return Outcome(row=found, copies=found.pop("copies"), created=False)
    created = await (await connection.execute(QUERIES[f"{resource}/insert"], key)).fetchone()
    assert created is not None  # INSERT ... RETURNING gives a row or an error
    return Outcome(row=created, copies=1, created=True)


async def check_usable(connection: Connection, resources: Iterable[str]) -> None:
    """Raise an error of psycopg if the server is read-only or a table cannot be read."""
    answer = await (await connection.execute(QUERIES["read_only"])).fetchone()
    if answer is None or answer["read_only"]:
        raise psycopg.errors.ReadOnlySqlTransaction
    for resource in resources:
        # No row has id 0. Not prepared: a plan from before a change of the table would fail.
        await connection.execute(QUERIES[f"{resource}/get"], [0], prepare=False)
    await connection.execute(QUERIES["kept"], ["", 0], prepare=False)
