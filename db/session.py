"""What every session of the service is told, by the settings."""

import os

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.engine import CONNECT_TIMEOUT, ENGINES, Engine
from db.settings import Settings

# Seconds after which an idle connection is tried by the kernel, and between tries, so that one that
# has died unseen is found before a request takes it: each would cost its whole deadline.
KEEPALIVES_IDLE = 10
KEEPALIVES_INTERVAL = 2


def engine_of(settings: Settings) -> Engine:
    """Return the server's engine, PostgreSQL where nobody has said."""
    return ENGINES[settings.engine or "postgresql"]


def conninfo(settings: Settings) -> str:
    """Return DATABASE_URL with what every connection of the service needs added."""
    if settings.database_url is None:
        raise RuntimeError("no DATABASE_URL: `python app.py` starts a server and sets it")
    given = conninfo_to_dict(settings.database_url)
    deadline = round(settings.retry_deadline * 1000)  # ms
    session = {
        **transaction_settings(settings),
        # For the reads outside conn.transaction(), which would take predicate locks otherwise.
        "default_transaction_isolation": r"read\ committed",
        "timezone": "UTC",
    }
    engine = engine_of(settings)
    session.update(engine.settings)
    if not engine.planner_settings:
        del session["enable_seqscan"]
    inherited = given.get("options") or os.environ.get("PGOPTIONS")
    options = [inherited, *(f"-c {name}={value}" for name, value in session.items())]
    if settings.pooler:
        options = [inherited]
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


def transaction_settings(settings: Settings) -> dict[str, str]:
    """Return what each transaction needs, in the order of sql/settings.sql; times in ms."""
    deadline = round(settings.retry_deadline * 1000)
    return {
        # No statement works on for a request that has been answered.
        "statement_timeout": str(deadline),
        # Half of it: who waits so long for a lock waits for DDL or a stuck writer, and the
        # connection is worth more to the other requests.
        "lock_timeout": str(deadline // 2),
        # A worker that hangs between two statements must not hold locks, nor hold back VACUUM.
        "idle_in_transaction_session_timeout": str(deadline),
        # A sequential scan locks the whole table against all creators. On a small or a never
        # analysed table the planner would prefer it to the lookup's index.
        "enable_seqscan": "off",
        # By a warning a COMMIT tells that no standby has it.
        "client_min_messages": "warning",
    }
