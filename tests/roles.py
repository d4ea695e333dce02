"""The roles of sql/roles.sql."""

import subprocess

from psycopg.conninfo import make_conninfo

from db.embedded import BIN
from db.queries import ROLES
from tests.service import LIMIT, environment

SERVICE = "onerow_service"
OWNER = "onerow_owner"


def make_roles(database: str) -> None:
    """Run the script, as its first lines say."""
    subprocess.run(
        [BIN / "psql", "--no-psqlrc", "--quiet", "--file", ROLES, database],
        env=environment(),
        timeout=LIMIT,
        check=True,
    )


def as_role(database: str, role: str) -> str:
    """Return the URL of a database for one of the roles."""
    return make_conninfo(database, user=role)
