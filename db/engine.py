"""What the server is, by its own word, and what differs for it: nothing else asks."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from db.resources import ROOT

# Seconds for each host to answer, in which the default deadline has time for a second host.
CONNECT_TIMEOUT = 2


class Engine(NamedTuple):
    """What follows from the server's name."""

    name: str
    folder: str = ""  # in sql/, with its own schema.sql, and what differs for each resource
    planner_settings: bool = True  # enable_seqscan has an effect
    settings: tuple[tuple[str, str], ...] = ()  # of its own, for each session

    @property
    def schema(self) -> Path:
        """The file that makes the tables."""
        return ROOT / "sql" / self.folder / "schema.sql" if self.folder else ROOT / "schema.sql"


POSTGRESQL = Engine("PostgreSQL")
ENGINES = {
    "postgresql": POSTGRESQL,
    "yugabytedb": Engine(
        "YugabyteDB",
        "distributed/",
        # It would run a failed statement again by itself, without what the transaction read before.
        settings=(("yb_max_query_layer_retries", "0"),),
    ),
    "cockroachdb": Engine("CockroachDB", "distributed/", planner_settings=False),
}


def discover(url: str) -> str:
    """Return which of ENGINES the server says it is. Raises psycopg.Error."""
    given = conninfo_to_dict(url)
    timeout = given.get("connect_timeout", CONNECT_TIMEOUT)
    with psycopg.connect(url, connect_timeout=timeout) as connection:
        return named(connection.pgconn.parameter_status)


def named(status: Callable[[bytes], bytes | None]) -> str:
    """Return it from the parameters that the server sent when the connection began."""
    if status(b"crdb_version"):
        return "cockroachdb"
    if b"-YB-" in (status(b"server_version") or b""):
        return "yugabytedb"
    return "postgresql"
