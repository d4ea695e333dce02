"""Which engine the server is, and how each engine differs from PostgreSQL."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from db.resources import ROOT

# Seconds for each host to answer. Within the default deadline of 5 a second host can be tried.
CONNECT_TIMEOUT = 2


class Engine(NamedTuple):
    """An engine, and how it differs from PostgreSQL."""

    name: str
    folder: str = ""  # the folder in sql/ that has its schema.sql and its own lookups and lists
    planner_settings: bool = True  # whether it takes enable_seqscan into account
    settings: tuple[tuple[str, str], ...] = ()  # further settings of each session

    @property
    def schema(self) -> Path:
        """The file that makes the sample's tables on this engine."""
        return ROOT / "sql" / self.folder / "schema.sql" if self.folder else ROOT / "schema.sql"


POSTGRESQL = Engine("PostgreSQL")
ENGINES = {
    "postgresql": POSTGRESQL,
    "yugabytedb": Engine(
        "YugabyteDB",
        "distributed/",
        # YugabyteDB may run a failed statement again by itself. The statements before it would not
        # run again, and what they have read may be out of date.
        settings=(("yb_max_query_layer_retries", "0"),),
    ),
    "cockroachdb": Engine("CockroachDB", "distributed/", planner_settings=False),
}


def discover(url: str) -> str:
    """Connect, and return which key of ENGINES the server is. Raises psycopg.Error."""
    given = conninfo_to_dict(url)
    timeout = given.get("connect_timeout", CONNECT_TIMEOUT)
    with psycopg.connect(url, connect_timeout=timeout) as connection:
        return named(connection.pgconn.parameter_status)


def named(status: Callable[[bytes], bytes | None]) -> str:
    """Return the key of ENGINES, by the parameters that the server sends to a new connection.

    `status` is parameter_status() of libpq.
    """
    if status(b"crdb_version"):
        return "cockroachdb"
    if b"-YB-" in (status(b"server_version") or b""):
        return "yugabytedb"
    return "postgresql"
