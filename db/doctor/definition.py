"""Compares the index that a file would make with those that are there.

PostgreSQL describes both, so that its own words are compared, and not the text of the file.
"""

import re

from db.header import IDENTIFIER
from db.pipeline import Row
from db.queries import one_line
from db.resources import Resource
from db.way_out.change import Refused, Session, ask, composed, sql_of

# The statement of an index file, in parts, so that it can be run on another table.
_INDEX = re.compile(
    rf"(CREATE (?:UNIQUE )?INDEX) CONCURRENTLY {IDENTIFIER}"
    rf" ON (?:ONLY )?{IDENTIFIER}(?:\.{IDENTIFIER})? (.*)"
)

# With this the temporary table can be made in a session that is read-only by default, too.
READ_WRITE = b"SET TRANSACTION READ WRITE"


def made_by(connection: Session, resource: Resource, file: str) -> Row:
    """Return the index that a file would make, as sql/way_out/index.sql describes it.

    The index is made on an empty temporary table with the same columns, and rolled back, because
    only PostgreSQL knows how it writes an expression or a condition.

    Raises Refused, or psycopg.Error if this role or this server cannot make the temporary table.
    """
    said = _INDEX.fullmatch(one_line(sql_of(f"{resource.name}/{file}")))
    if said is None:
        raise Refused(
            f"{resource.files[file].path} must be one CREATE INDEX CONCURRENTLY name ON table,"
            " with capitals in quotes"
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


def indexes(connection: Session, resource: Resource, suffix: str) -> tuple[Row | None, list[Row]]:
    """Return the index named after the resource with this ending, and the table's other ones."""
    name = f"{resource.name}_{suffix}"
    named, others = None, []
    for index in ask(connection, "way_out/index", resource.table, name):
        if index["name"] == name:
            named = index
        else:
            others.append(index)
    return named, others
