"""The roles of sql/roles.sql."""

import subprocess

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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
    _give_password(database)


def _give_password(database: str) -> None:
    """Let the roles log in as the tests' own does, where a server asks for a password."""
    if password := conninfo_to_dict(database).get("password"):
        with psycopg.connect(database, autocommit=True) as connection:
            for role in (SERVICE, OWNER):
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))


def as_role(database: str, role: str) -> str:
    """Return the URL of a database for one of the roles."""
    return make_conninfo(database, user=role)
