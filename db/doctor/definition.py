"""What an index file would make, held against what is there: by PostgreSQL's own words for both."""

import re

from db.connection import Row
from db.queries import one_line
from db.resources import Resource
from db.way_out.change import Connection, Refused, ask, composed, sql_of

# An index file's statement, in which the empty table stands for the resource's.
_NAME = r'(?:"(?:[^"]|"")+"|\w+)'
_INDEX = re.compile(
    rf"(CREATE (?:UNIQUE )?INDEX) CONCURRENTLY {_NAME} ON (?:ONLY )?{_NAME}(?:\.{_NAME})? (.*)"
)

# A statement at the start of a transaction; else the session may be read-only.
READ_WRITE = b"SET TRANSACTION READ WRITE"


def made_by(connection: Connection, resource: Resource, file: str) -> Row:
    """Return the index that a file would make, as index.sql describes it.

    It is made on an empty temporary table with the same columns, and gone at once: what PostgreSQL
    calls an expression or a condition only PostgreSQL knows.

    Raises Refused, or psycopg.Error where this role or this server makes no such table.
    """
    said = _INDEX.fullmatch(one_line(sql_of(f"{resource.name}/{file}")))
    if said is None:
        raise Refused(
            f"{resource.files[file].path} must be one CREATE INDEX CONCURRENTLY name ON table"
        )
    with connection.transaction(force_rollback=True):
        connection.execute(READ_WRITE)
        shape = composed(connection, "way_out/shape", resource.table)
        if shape is None:
            raise Refused(f"there is no table {resource.table}")
        connection.execute(shape)
        connection.execute(f"{said[1]} ON pg_temp.onerow_shape {said[2]}".encode())
        (made,) = ask(connection, "way_out/index", "pg_temp.onerow_shape", "")
    return made


def indexes(
    connection: Connection, resource: Resource, suffix: str
) -> tuple[Row | None, list[Row]]:
    """Return the index that has the resource's name with this ending, and the table's others."""
    name = f"{resource.name}_{suffix}"
    named, others = None, []
    for index in ask(connection, "way_out/index", resource.table, name):
        if index["name"] == name:
            named = index
        else:
            others.append(index)
    return named, others
