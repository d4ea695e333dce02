"""What every session of the service and of the commands is told, whatever others configured.

ALTER DATABASE ... SET and ALTER ROLE ... SET reach our sessions, too. pg_settings of PostgreSQL 15
and 18 was read for the contexts user and superuser. The settings that change the meaning or the
cost of our SQL are here. The others stay as the administrator has them: memory, logging, vacuum,
places of files, and default_transaction_read_only, which is a way to stop all writers.
"""

import json
import os

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow

from db.engine import CONNECT_TIMEOUT, ENGINES, Engine
from db.resources import RESOURCES, ROOT
from db.settings import Settings

SET_CONFIG = (ROOT / "sql" / "set_config.sql").read_bytes()
SEARCH_PATH = (ROOT / "sql" / "search_path.sql").read_bytes()

# The tables, as the SQL files name them: the resources', and merge's own.
TABLES = [*sorted({each.table for each in RESOURCES.values()}), "merged"]

# Seconds after which the kernel probes an idle connection, and between two probes. So a connection
# that has died unseen is found before it costs a request its whole deadline.
KEEPALIVES_IDLE = 10
KEEPALIVES_INTERVAL = 2

# Settings that change what a statement means. Their values are as PostgreSQL shows them, so that
# sql/set_config.sql can tell what is set already.
MEANING = {
    # psycopg reads no other style, so that the answer would fail after COMMIT.
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    # With fewer digits merge would keep another number than the row had.
    "extra_float_digits": "1",
    "bytea_output": "hex",  # one form of a row, in answers and in merged
    "xmloption": "content",  # merge --undo must put back XML that is no document
    "array_nulls": "on",  # off would make NULL in an array parameter a string
    "standard_conforming_strings": "on",  # off would make a backslash in a literal an escape
    "quote_all_identifiers": "off",  # with on, the catalog's names differ from those of the files
    "exit_on_error": "off",  # with on, each refusal and each conflict costs the connection
    # With on, a policy hides rows, and they would be made a second time. With off, a statement
    # fails where a policy would hide any.
    "row_security": "off",
    # With replica, foreign keys are not checked. Only a superuser can set it back, and the session
    # of another role does not begin.
    "session_replication_role": "origin",
    # Statements outside a transaction of ours would take predicate locks at SERIALIZABLE.
    "default_transaction_isolation": "read committed",
    # With off, a crash of the server loses rows that were told 201. See sql/set_config.sql.
    "synchronous_commit": "on",
    # Only a warning tells that no standby has what was committed.
    "client_min_messages": "warning",
    # merge, guard and init make tables; SERIALIZABLE needs what other methods may not have.
    "default_table_access_method": "heap",
    # A pool keeps connections that have nothing to do, and a command thinks between statements.
    "idle_session_timeout": "0",
    "transaction_timeout": "0",  # the other timeouts are enough, and do not cost the connection
    # Without these a join of all rows is a nested loop.
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
}

# How the lookups are planned. The plan decides what a serializable transaction locks.
PLANS = {
    # A sequential scan locks the whole table against all creators. On a small or a never analysed
    # table the planner would prefer it to the lookup's index.
    "enable_seqscan": "off",
    # Nor may the whole of another index, which locks as much. Where a table has few rows, and an
    # index has all columns of an answer, the planner would read that one.
    "enable_indexonlyscan": "off",
    # These plans use that index, also for a value from a join. Without them all plans are as bad.
    "enable_indexscan": "on",
    "enable_bitmapscan": "on",
    "enable_nestloop": "on",
    "enable_partition_pruning": "on",
    # Up to PostgreSQL 17 enable_seqscan = off only adds a cost of 1e10, which these could outdo.
    "seq_page_cost": "1",
    "random_page_cost": "4",
    "cpu_tuple_cost": "0.01",
    "cpu_index_tuple_cost": "0.005",
    "cpu_operator_cost": "0.0025",
    # That cost is also above jit_above_cost, so that each check of a foreign key without an index
    # would take a tenth of a second for compiling.
    "jit": "off",
    # debug_parallel_query, or a low parallel_setup_cost, would make a lookup start processes.
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "auto",  # or a prepared statement would be planned anew each time
}


def engine_of(settings: Settings) -> Engine:
    """Return the server's engine, PostgreSQL where nobody has said."""
    return ENGINES[settings.engine or "postgresql"]


def conninfo(settings: Settings) -> str:
    """Return DATABASE_URL with what every connection of the service needs added."""
    if settings.database_url is None:
        raise RuntimeError("no DATABASE_URL: `python app.py` starts a server and sets it")
    given = conninfo_to_dict(settings.database_url)
    deadline = round(settings.retry_deadline * 1000)  # ms
    engine = engine_of(settings)
    # What a session needs from its first statement on. sql/session.sql sees by enable_seqscan
    # whether a pooler has dropped these options. pin() sets the rest.
    session = {
        **timeouts(settings),
        "client_min_messages": "warning",
        "default_transaction_isolation": r"read\ committed",
        "timezone": "UTC",
        "idle_session_timeout": "0",
        **({"enable_seqscan": "off", "jit": "off"} if engine.planner_settings else {}),
        **dict(engine.settings),
    }
    inherited = given.get("options") or os.environ.get("PGOPTIONS")
    words = [f"-c {name}={value}" for name, value in session.items()]
    options = [inherited] if settings.pooler else [inherited, *words]
    return make_conninfo(
        "",
        **{
            "fallback_application_name": "onerow",  # gives way to one in DATABASE_URL
            "target_session_attrs": "read-write",  # a standby refuses SERIALIZABLE
            "connect_timeout": CONNECT_TIMEOUT,
            # Otherwise only the first host would ever be tried, even if it is a former primary.
            "load_balance_hosts": "random",
            # So a network that has gone silent is noticed by the end of the request.
            "tcp_user_timeout": deadline,
            "keepalives_idle": KEEPALIVES_IDLE,
            "keepalives_interval": KEEPALIVES_INTERVAL,
            **given,
            "client_encoding": "UTF8",  # whatever the database's own is
            "options": " ".join(str(option) for option in options if option),
        },
    )


def timeouts(settings: Settings) -> dict[str, str]:
    """Return what keeps a request's statements from working, or waiting, for too long; in ms."""
    deadline = round(settings.retry_deadline * 1000)
    return {
        # No statement works on for a request that has been answered.
        "statement_timeout": str(deadline),
        # Half of the deadline. A request that waits longer for a lock waits for DDL or for a stuck
        # writer, and its connection is worth more to the other requests.
        "lock_timeout": str(deadline // 2),
        # A worker that hangs between two statements must not hold locks, nor hold back VACUUM.
        "idle_in_transaction_session_timeout": str(deadline),
    }


def service_settings(settings: Settings) -> dict[str, str]:
    """Return what the service's sessions are told, but for the search_path."""
    return {**MEANING, **PLANS, **timeouts(settings)}


def parameters(settings: dict[str, str], path: str | None, *, transaction: bool) -> list[str]:
    """Return the parameters of sql/set_config.sql; `path` is what sql/search_path.sql found."""
    search_path = {"search_path": path} if path else {}
    return [json.dumps({**settings, **search_path}), str(transaction)]


def pin(connection: Connection[DictRow], settings: dict[str, str]) -> None:
    """Tell a command's session these settings, and the search_path. Raises psycopg.Error."""
    row = connection.execute(SEARCH_PATH, [TABLES, []]).fetchone()
    assert row is not None
    connection.execute(SET_CONFIG, parameters(settings, row["search_path"], transaction=False))
