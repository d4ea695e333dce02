"""Makes the roles of sql/roles.sql, and roles for tests."""

import subprocess
from secrets import token_hex

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import Literal

from db.programs import BIN
from db.roles import roles
from tests.support.service import LIMIT, environment, sql

SERVICE = "onerow_service"
OWNER = "onerow_owner"


def make_roles(database: str, script: str | None = None) -> None:
    """Run the script that `python -m db roles` writes for the sample."""
    subprocess.run(
        [BIN / "psql", "--no-psqlrc", "--quiet", database],
        input=script or roles(),
        env=environment(),
        timeout=LIMIT,
        check=True,
        text=True,
    )
    for role in (SERVICE, OWNER):
        _let_in(database, role)


def make_role(server: str, name: str) -> None:
    """Make a role that may log in. If its name begins with onerow_test_, the run drops it."""
    sql(server, f"CREATE ROLE {name} LOGIN")
    _let_in(server, name)


def make_superuser(database: str, name: str, secret: str) -> str:
    """Make a superuser whose password begins with the secret; return the database's URL for it."""
    password = f"{secret}-{token_hex(8)}"  # nobody else can guess it
    sql(database, f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{password}'")
    return make_conninfo(database, user=name, password=password)


def _let_in(server: str, role: str) -> None:
    """Give the role the password of the tests' own, for the server may ask for one."""
    if password := conninfo_to_dict(server).get("password"):
        # The password is a literal, for this statement cannot have parameters.
        sql(server, f"ALTER ROLE {role} PASSWORD {Literal(str(password)).as_string()}")


def as_role(database: str, role: str) -> str:
    """Return the URL of a database for one of the roles."""
    return make_conninfo(database, user=role)
