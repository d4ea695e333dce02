"""Compares the foreign keys that refer to a resource with the files that it has for them."""

from typing import Any

from db.connection import Row
from db.header import names_of, table_of
from db.resources import Resource
from db.way_out.change import Refused


def held_against(resource: Resource) -> list[Any]:
    """Return the parameters of sql/way_out/foreign_keys.sql for a resource."""
    references = resource.references
    # A folder whose name has no table in it gets NULL, for which no foreign key is found.
    tables = [table_of(each) or None for each in references]
    return [resource.table, references, tables, [names_of(each)[-1] for each in references]]


def check_references(resource: Resource, foreign_keys: list[Row]) -> None:
    """Raise Refused unless each foreign key to a resource has files, and each file a foreign key.

    `foreign_keys` are the rows of sql/way_out/foreign_keys.sql.
    """
    if unknown := [key["referring"] for key in foreign_keys if key["reference"] is None]:
        raise Refused(
            "a foreign key that merge has no SQL for would delete rows or refuse:"
            f" {', '.join(unknown)}"
        )
    if gone := [key["reference"] for key in foreign_keys if key["referring"] is None]:
        raise Refused(
            f"without a foreign key {', '.join(gone)} a row written meanwhile"
            f" would refer to a row of {resource.name} that is gone"
        )
