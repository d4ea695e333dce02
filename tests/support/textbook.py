"""Get or create as one reads it: by psycopg's cursors, and the insert only if nothing was found."""

from collections.abc import Sequence

from db.connection import Connection
from db.queries import QUERIES
from db.rows import Outcome
from db.transaction import LateInsert


async def get_or_create(connection: Connection, resource: str, key: Sequence[str]) -> Outcome:
    """Return the row of `key`, creating it if there is none; for db.transaction.interactive()."""
    cursor = await connection.execute(QUERIES[f"{resource}/select"], key)
    if found := await cursor.fetchone():
        return Outcome(found, found.pop("copies"), created=False)
    cursor = await connection.execute(QUERIES[f"{resource}/insert"], key)
    if created := await cursor.fetchone():
        return Outcome(created, 1, created=True)
    raise LateInsert
