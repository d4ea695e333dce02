"""Tells our own tables from tables and views that somebody else has made under their names.

A role that may create in a schema of the search_path can make one first. Using it runs its owner's
code with the rights of this session, and even planning a statement may do so.
"""

from collections.abc import Sequence

from db.connection import Connection, array_of
from db.pipeline import Statement
from db.queries import QUERIES
from db.resources import RESOURCES
from db.transaction import MergedNotOurs
from db.way_out.change import Refused, Session, ask

# An extension's view, which one of the pages reads.
STATEMENTS = "pg_stat_statements"

# The owners of the served tables are trusted, because their triggers run in these sessions anyway.
TRUSTED = sorted({each.table for each in RESOURCES.values()})


def why_not_ours(connection: Session) -> str | None:
    """Return what to do where the table merged is somebody else's, or None if it is merge's."""
    for table in ask(connection, "not_ours", ["merged"], TRUSTED):
        return (
            f"the table merged is somebody else's, for it {table['why']}: rename it, or put another"
            " schema first on the search_path and make merged there by sql/way_out/merged.sql"
        )
    return None


def refuse_others_merged(connection: Session) -> None:
    """Raise Refused if the table merged is somebody else's."""
    if reason := why_not_ours(connection):
        raise Refused(reason)


def refuse_others_tables(connection: Session, tables: Sequence[str]) -> None:
    """Raise Refused if one of these tables is neither the role's own nor a superuser's."""
    for table in ask(connection, "not_ours", tables, []):
        raise Refused(
            f"the table {table['name']} is there already, and {table['why']}: run this as its"
            " owner, if that is whom you trust, or rename it"
        )


async def not_ours(connection: Connection, *names: str, prepared: bool = False) -> list[str]:
    """Return which of these names lead to somebody else's table or view (on PostgreSQL only)."""
    if connection.engine.folder:
        return []
    parameters = [array_of(names), array_of(TRUSTED)]
    name = b"not_ours" if prepared else b""
    (found,) = await connection.run(Statement(QUERIES["not_ours"], parameters, name))
    return [row["name"] for row in found]


async def check_merged(connection: Connection, *, prepared: bool = False) -> None:
    """Raise MergedNotOurs if the table merged is somebody else's."""
    if await not_ours(connection, "merged", prepared=prepared):
        raise MergedNotOurs
