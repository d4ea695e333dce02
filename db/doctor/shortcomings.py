"""What is wrong with this database although the service serves; doctor looks at more."""

from collections.abc import Sequence

from db.doctor.lookup import JSON, build_lookup, is_served, scans
from db.pool import Connection
from db.queries import QUERIES, explained
from db.resources import RESOURCES

# The first minor release of each major one that does not miss conflicts on an index that was empty
# at the start (release notes of 2026-08-13).
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
    """Return a sentence for each, with what mends it. Raises psycopg.Error."""
    if connection.engine.folder:
        return []
    found = []
    number = connection.info.server_version
    if fault := version_fault(number):
        found.append(f"PostgreSQL {number // 10_000}.{number % 10_000} {fault}")
    resources = [RESOURCES[name] for name in names]
    indexes = [f"{name}_lookup" for name in names]
    parameters = [[each.table for each in resources], indexes]
    # EXPLAIN does not look anything up: it tells by which index it would.
    valid, *plans = await connection.rows_of_each(
        (QUERIES["lookups"], parameters), *(explained(each, "select", JSON) for each in names)
    )
    there = {row["name"]: row["valid"] for row in valid}
    for resource, index, plan in zip(resources, indexes, plans, strict=True):
        build = build_lookup(resource)
        if index not in there:
            found.append(f"Without {index} all creators of {resource.name} conflict: {build}")
        elif not there[index]:
            found.append(f"{index} is INVALID: DROP INDEX CONCURRENTLY {index}; {build}")
        elif (found_by := scans(plan)) and not any(map(is_served, found_by)):
            found.append(
                f"{index} does not serve the lookup, and all creators of {resource.name} conflict:"
                " run `python -m db init`"
            )
    return found
