"""What every session of the service and of the commands is told, whatever others configured.

ALTER DATABASE ... SET and ALTER ROLE ... SET reach our sessions, too. PostgreSQL's settings were
gone through by its own list, pg_settings, those of the contexts user and superuser, of 15 and 18:
what changes the meaning or the cost of our SQL is here. The others stay as the administrator has
them: memory, logging, vacuum, places of files, and default_transaction_read_only, which is a way to
stop all writers.
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

# Seconds after which an idle connection is tried by the kernel, and between tries, so that one that
# has died unseen is found before a request takes it: each would cost its whole deadline.
KEEPALIVES_IDLE = 10
KEEPALIVES_INTERVAL = 2

# What a statement means. Values are as PostgreSQL shows them, so that sql/set_config.sql sees that
# they are there already.
MEANING = {
    # psycopg reads no other style: the answer would fail after COMMIT.
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    # Fewer digits, and merge would keep another number than the row had.
    "extra_float_digits": "1",
    "bytea_output": "hex",  # one form of a row, in answers and in merged
    "xmloption": "content",  # else merge --undo could not put back XML that is no document
    "array_nulls": "on",  # else NULL in an array parameter is a string
    "standard_conforming_strings": "on",  # else a backslash in a literal is an escape
    "quote_all_identifiers": "off",  # else the catalog's names are not those of the files
    "exit_on_error": "off",  # else each refusal, and each conflict, costs the connection
    # Rows that a policy hides would be made a second time: a statement fails where it hides any.
    "row_security": "off",
    # replica: foreign keys are not checked. Only a superuser can set it back; a session of another
    # role does not begin.
    "session_replication_role": "origin",
    # For statements outside a transaction of ours, which would take predicate locks otherwise.
    "default_transaction_isolation": "read committed",
    # off: a crash of the server loses rows that were told 201. See sql/set_config.sql.
    "synchronous_commit": "on",
    # By a warning a COMMIT tells that no standby has it.
    "client_min_messages": "warning",
    # merge, guard and init make tables; SERIALIZABLE needs what other methods may not have.
    "default_table_access_method": "heap",
    # A pool keeps connections that have nothing to do, and a command thinks between statements.
    "idle_session_timeout": "0",
    "transaction_timeout": "0",  # the others are enough, and do not cost the connection
    # Without these a join of all rows is a loop in a loop.
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
}

# How the lookups are planned: the plan decides what a serializable transaction locks.
PLANS = {
    # A sequential scan locks the whole table against all creators. On a small or a never analysed
    # table the planner would prefer it to the lookup's index.
    "enable_seqscan": "off",
    # Ways to use that index, with a parameter of a join, too; without them all plans are as bad.
    "enable_indexscan": "on",
    "enable_bitmapscan": "on",
    "enable_nestloop": "on",
    "enable_partition_pruning": "on",
    # Until 17, enable_seqscan = off is a cost of 1e10, which these could outdo.
    "seq_page_cost": "1",
    "random_page_cost": "4",
    "cpu_tuple_cost": "0.01",
    "cpu_index_tuple_cost": "0.005",
    "cpu_operator_cost": "0.0025",
    # That cost is also above jit_above_cost: where a foreign key's check has no index, a tenth of a
    # second of compiling for each.
    "jit": "off",
    # debug_parallel_query, or a low parallel_setup_cost, would make a lookup start processes.
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "auto",  # else each statement is planned anew, although it is prepared
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
    # What a session needs from its first statement on, and by which it is seen that a pooler has
    # dropped the options. pin() does the rest.
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
            # Else the first host, if it is a former primary, would be all that is ever tried.
            "load_balance_hosts": "random",
            # A network that has gone silent is noticed by when the request is over.
            "tcp_user_timeout": deadline,
            "keepalives_idle": KEEPALIVES_IDLE,
            "keepalives_interval": KEEPALIVES_INTERVAL,
            **given,
            "client_encoding": "UTF8",  # whatever the database's own
            "options": " ".join(str(option) for option in options if option),
        },
    )


def timeouts(settings: Settings) -> dict[str, str]:
    """Return what keeps a request's statements from working, or waiting, for too long; in ms."""
    deadline = round(settings.retry_deadline * 1000)
    return {
        # No statement works on for a request that has been answered.
        "statement_timeout": str(deadline),
        # Half of it: who waits so long for a lock waits for DDL or a stuck writer, and the
        # connection is worth more to the other requests.
        "lock_timeout": str(deadline // 2),
        # A worker that hangs between two statements must not hold locks, nor hold back VACUUM.
        "idle_in_transaction_session_timeout": str(deadline),
    }


def service_settings(settings: Settings) -> dict[str, str]:
    """Return what the service's sessions are told, but for the search_path."""
    return {**MEANING, **PLANS, **timeouts(settings)}


def parameters(settings: dict[str, str], path: str | None, *, transaction: bool) -> list[str]:
    """Return those of sql/set_config.sql; `path` is what sql/search_path.sql has found."""
    search_path = {"search_path": path} if path else {}
    return [json.dumps({**settings, **search_path}), str(transaction)]


def pin(connection: Connection[DictRow], settings: dict[str, str]) -> None:
    """Tell a command's session these settings, and the search_path. Raises psycopg.Error."""
    row = connection.execute(SEARCH_PATH, [TABLES, []]).fetchone()
    assert row is not None
    connection.execute(SET_CONFIG, parameters(settings, row["search_path"], transaction=False))
