"""The script that makes the roles: sql/roles.sql behind lines that name the tables."""

import json

from db.header import table_of
from db.queries import ROLES
from db.resources import RESOURCES


def roles() -> str:
    """Return the script for psql."""
    tables = {name: resource.table for name, resource in RESOURCES.items()}
    # POST reads the tables whose rows --keep counts.
    counted = {
        table_of(reference)
        for resource in RESOURCES.values()
        for reference in resource.references
        if "referring_rows" in resource.files["select"].text
    }
    return f"{_set('resources', tables)}{_set('counted', sorted(counted))}{ROLES.read_text()}"


def _set(variable: str, value: object) -> str:
    """Return the line that sets a variable of psql to JSON."""
    # psql reads a backslash inside quotes as the beginning of an escape.
    quoted = json.dumps(value).replace("\\", "\\\\").replace("'", "''")
    return f"\\set {variable} '{quoted}'\n"
