"""What is wrong with this database although the service serves; doctor looks at more."""

from collections.abc import Sequence

from db.pool import Connection
from db.queries import QUERIES

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


def one_line(query: str) -> str:
    """Return an SQL file's statement on one line, to paste."""
    lines = QUERIES[query].decode().splitlines()
    return " ".join(line.strip() for line in lines if not line.startswith("--"))


async def shortcomings(connection: Connection, resources: Sequence[str]) -> list[str]:
    """Return a sentence for each, with what mends it. Raises psycopg.Error."""
    if connection.engine.folder:
        return []
    found = []
    number = connection.info.server_version
    if fault := version_fault(number):
        found.append(f"PostgreSQL {number // 10_000}.{number % 10_000} {fault}")
    names = {f"{resource}_lookup": resource for resource in resources}
    rows = await connection.rows(QUERIES["lookups"], [list(names)])
    valid = {row["name"]: row["valid"] for row in rows}
    for name, resource in names.items():
        build = one_line(f"{resource}/lookup")
        if name not in valid:
            found.append(f"Without {name} all creators of {resource} conflict: {build}")
        elif not valid[name]:
            found.append(f"{name} is INVALID: DROP INDEX CONCURRENTLY {name}; {build}")
    return found
