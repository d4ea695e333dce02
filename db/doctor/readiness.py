"""Checks whether a POST would be served, and what is wrong even so. Doctor checks more."""

from collections.abc import Sequence
from itertools import chain

import psycopg

from db.connection import Connection
from db.doctor.lookup import JSON, build_lookup, is_served, scans
from db.ours import check_merged
from db.pipeline import Row, Statement
from db.queries import QUERIES, explained
from db.resources import RESOURCES
from db.transaction import SchemaMissing, SettingsLost

# For each major version, the first minor one that does not miss conflicts on an index that was
# empty at the start (PostgreSQL's release notes of 2026-08-13).
FIXED = {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}


def version_fault(number: int) -> str | None:
    """Return what is wrong with this server_version_num, or None."""
    major, minor = divmod(number, 10_000)
    if major < min(FIXED):
        return f"is too old: the SQL needs {min(FIXED)} or later"
    if minor < FIXED.get(major, 0):
        return (
            "can miss a conflict on an index that was empty at the start:"
            f" update it to {major}.{FIXED[major]} or later"
        )
    return None


async def shortcomings(connection: Connection, names: Sequence[str]) -> list[str]:
    """Return a sentence, with what mends it, for each shortcoming with which a POST is served.

    `names` are those of the resources. If a POST would not be served, raises SchemaMissing, which
    names the resource, MergedNotOurs, SettingsLost or psycopg.Error. The statements are only
    explained: that shows whether tables, columns and rights are there, and which index a lookup
    would use.
    """
    await check_merged(connection)
    form = b"" if connection.engine.folder else JSON  # not every engine has this format
    needed = {
        name: (
            Statement(*explained(name, "select", form)),
            Statement(*explained(name, "insert")),
            Statement(QUERIES["lookup_index"], [RESOURCES[name].table, f"{name}_lookup"]),
        )
        for name in names
    }
    kept = Statement(b"EXPLAIN " + QUERIES["kept"], ["", ""])
    session = Statement(QUERIES["session"])
    try:
        (answer,), _, *found = await connection.run(session, kept, *chain(*needed.values()))
    except psycopg.ProgrammingError:
        # The error does not tell which of the statements failed, so each resource's are sent alone.
        for name, statements in {**needed, "merged": (kept,)}.items():
            try:
                await connection.run(*statements)
            except psycopg.ProgrammingError as error:
                Connection.search_paths.clear()  # the table may have moved
                raise SchemaMissing(name) from error
        raise
    if answer["read_only"]:
        raise psycopg.errors.ReadOnlySqlTransaction
    if answer["unset"] and connection.engine.planner_settings and not connection.set_config:
        raise SettingsLost
    if connection.engine.folder:
        return []
    number = connection.info.server_version
    fault = version_fault(number)
    told = [f"PostgreSQL {number // 10_000}.{number % 10_000} {fault}"] if fault else []
    for name, plan, (index,) in zip(names, found[::3], found[2::3], strict=True):
        told += _about_lookup(name, plan, index)
    return told


def _about_lookup(name: str, plan: list[Row], index: Row) -> list[str]:
    lookup, partitioned = index["sql_name"], index["partitioned"]
    if not lookup:
        build = build_lookup(RESOURCES[name], partitioned=partitioned)
        return [f"Without {name}_lookup all creators of {name} conflict: {build}"]
    if not index["valid"]:
        rebuild = build_lookup(RESOURCES[name], partitioned=partitioned, instead_of=lookup)
        return [f"{lookup} is INVALID: {rebuild}"]
    if (found := scans(plan)) and not any(map(is_served, found)):
        return [
            f"{lookup} does not serve the lookup, and all creators of {name} conflict:"
            " run `python -m db init`"
        ]
    return []
