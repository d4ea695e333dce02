"""The roles of sql/roles.sql, and those that a test makes."""

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
    for role in (SERVICE, OWNER):
        _let_in(database, role)


def make_role(server: str, name: str) -> None:
    """Make a role that may log in; one whose name begins with onerow_test_ is gone at the end."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    _let_in(server, name)


def _let_in(server: str, role: str) -> None:
    """Give it the password of the tests' own role, where the server asks for one."""
    if password := conninfo_to_dict(server).get("password"):
        with psycopg.connect(server, autocommit=True) as connection:
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
            connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))


def as_role(database: str, role: str) -> str:
    """Return the URL of a database for one of the roles."""
    return make_conninfo(database, user=role)
