"""The connections of one worker, each set up the way the SQL needs it."""

from typing import Any

from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg.types.numeric import Int8Dumper
from psycopg_pool import AsyncConnectionPool

from db.settings import Settings

Row = dict[str, Any]
Connection = AsyncConnection[Row]
Pool = AsyncConnectionPool[Connection]


def open_pool(settings: Settings) -> Pool:
    """Make the pool; `async with` opens it, without waiting for the database."""
    return AsyncConnectionPool(
        conninfo(settings),
        min_size=settings.pool_size,
        max_size=settings.pool_size,
        max_waiting=settings.pool_queue,
        kwargs={
            # Outside conn.transaction() a statement is its own READ COMMITTED transaction.
            "autocommit": True,
            "cursor_factory": AsyncRawCursor,  # $1, as in the files
            "row_factory": dict_row,
            "prepare_threshold": 0,  # prepare each statement at its first use
        },
        configure=_configure,
        open=False,
        name="onerow",
    )


async def _configure(connection: Connection) -> None:
    # Every BEGIN that psycopg sends says so: a SET TRANSACTION would end with its transaction, and
    # the next attempt would run at READ COMMITTED.
    await connection.set_isolation_level(IsolationLevel.SERIALIZABLE)
    # Else psycopg sends 7 as smallint and 70000 as integer, and each would be a plan of its own.
    connection.adapters.register_dumper(int, Int8Dumper)


def conninfo(settings: Settings) -> str:
    """Return DATABASE_URL with what every connection of the service needs added."""
    if settings.database_url is None:
        raise RuntimeError("no DATABASE_URL: `python app.py` starts a server and sets it")
    given = conninfo_to_dict(settings.database_url)
    deadline = round(settings.retry_deadline * 1000)  # ms
    session = {
        # No statement works on for a request that has been answered.
        "statement_timeout": deadline,
        # Half of it: who waits so long for a lock waits for DDL or a stuck writer, and the
        # connection is worth more to the other requests.
        "lock_timeout": deadline // 2,
        # A worker that hangs between two statements must not hold locks, nor hold back VACUUM.
        "idle_in_transaction_session_timeout": deadline,
        # A sequential scan locks the whole table against all creators. On a small or a never
        # analysed table the planner would prefer it to the lookup's index.
        "enable_seqscan": "off",
        "timezone": "UTC",
    }
    options = [given.get("options"), *(f"-c {name}={value}" for name, value in session.items())]
    return make_conninfo(
        "",
        **{
            "fallback_application_name": "onerow",  # gives way to one in DATABASE_URL
            "target_session_attrs": "read-write",  # a standby refuses SERIALIZABLE
            **given,
            "options": " ".join(str(option) for option in options if option),
        },
    )
