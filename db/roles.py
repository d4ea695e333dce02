"""The script of the roles: sql/roles.sql, told which tables there are."""

import json

from db.queries import ROLES
from db.resources import RESOURCES


def roles() -> str:
    """Return the script for psql."""
    tables = json.dumps({name: resource.table for name, resource in RESOURCES.items()})
    # In psql's quotes a backslash begins an escape.
    quoted = tables.replace("\\", "\\\\").replace("'", "''")
    return f"\\set resources '{quoted}'\n{ROLES.read_text()}"
