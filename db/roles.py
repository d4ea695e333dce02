"""The script that makes the roles: sql/roles.sql behind a line that names the tables."""

import json

from db.queries import ROLES
from db.resources import RESOURCES


def roles() -> str:
    """Return the script for psql."""
    tables = json.dumps({name: resource.table for name, resource in RESOURCES.items()})
    # psql reads a backslash inside quotes as the beginning of an escape.
    quoted = tables.replace("\\", "\\\\").replace("'", "''")
    return f"\\set resources '{quoted}'\n{ROLES.read_text()}"
