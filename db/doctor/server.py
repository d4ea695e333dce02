"""Is the server fit? Each check is by a column of sql/way_out/doctor/server.sql."""

from db.doctor.check import ADVICE, FAIL, OK, Check
from db.doctor.readiness import version_fault
from db.doctor.trial import INSERT_AGE
from db.pipeline import Row
from db.settings import INSPECTION_POOL_SIZE, Settings


def version(server: Row) -> Check:
    """Return whether the service can run on its version."""
    version = f"PostgreSQL {server['version']}"
    if fault := version_fault(server["version_num"]):
        return Check(FAIL, "server", f"{version} {fault}")
    return Check(OK, "server", version)


def writable(server: Row) -> Check:
    """Return whether it takes writes."""
    if server["standby"]:
        return Check(FAIL, "writes", "this is a standby: DATABASE_URL must lead to the primary")
    if server["read_only"]:
        return Check(FAIL, "writes", "the session is read-only: see default_transaction_read_only")
    return Check(OK, "writes", "this server takes them")


def durable(server: Row) -> Check:
    """Return whether a commit survives a crash."""
    off = [name for name in ("fsync", "full_page_writes") if not server[name]]
    if off:
        return Check(
            FAIL, "durability", f"{', '.join(off)} off: a crash loses rows that were told 201"
        )
    if server["synchronous_commit"] == "off":
        return Check(
            ADVICE,
            "durability",
            "synchronous_commit is off, but not in the service, which sets it: a crash loses what"
            " others committed last",
        )
    return Check(OK, "durability", "a commit is on disk")


def role(server: Row) -> Check:
    """Return which powers the session's role has that the service does not need."""
    powers = {
        "superuser": "is a superuser",
        "bypasses_row_security": "bypasses row security",
        "creates_roles": "may create roles",
        "creates_databases": "may create databases",
    }
    if not server["superuser"]:  # a superuser has these powers anyway
        powers["replicates"] = "may replicate"
        powers["creates_in_public"] = "may create tables in the schema public"
    has = [text for name, text in powers.items() if server[name]]
    # A comment in sql/roles.sql advises this membership.
    if member_of := [name for name in server["member_of"] if name != "pg_read_all_stats"]:
        has.append(f"is a member of {', '.join(member_of)}")
    if has:
        return Check(
            ADVICE, "role", f"{server['role']} {', '.join(has)}: the service needs none of it"
        )
    return Check(OK, "role", f"{server['role']} has no powers over the server")


def connections(server: Row, settings: Settings) -> Check:
    """Return whether it has enough of them for the service."""
    wanted = settings.connections
    limits = [server[name] for name in ("connections", "role_connections", "database_connections")]
    most = min(limit for limit in limits if limit is not None)
    detail = (
        f"WORKERS x (POOL_SIZE + {INSPECTION_POOL_SIZE}) = {wanted} of {most}"
        " that the server lets this role have"
    )
    if wanted > most:
        return Check(ADVICE, "connections", f"{detail}: requests will wait, or get 503")
    return Check(OK, "connections", detail)


def predicate_locks(server: Row, pages: int) -> Check:
    """Return whether it has enough of them, and how many `pages` a transaction locks one by one."""
    held, most = server["predicate_locks_held"], server["predicate_locks"]
    detail = f"{held:,} of {most:,} in use"
    # When the locks run out, transactions fail with 53200, and requests get 503.
    if held > most / 2:
        return Check(ADVICE, "predicate locks", f"{detail}: raise max_pred_locks_per_transaction")
    detail += (
        f"; a transaction of many keys locks {pages} one by one, and with more the whole index"
    )
    return Check(OK, "predicate locks", f"{detail} (max_pred_locks_per_relation)")


def serializable(server: Row) -> Check:
    """Return whether it remembers enough transactions to see each conflict."""
    most = server["serializable"]
    rate = round(most / INSERT_AGE)
    # 20,000 is twice what two workers on two cores were measured to send.
    level = OK if rate >= 20_000 else ADVICE
    return Check(
        level,
        "serializable transactions",
        f"the server remembers {most:,}, enough for {rate:,} a second where an insert comes within"
        f" {INSERT_AGE * 1000:.0f} ms of its lookup; max_prepared_transactions or max_connections,"
        " which need a restart, raise it by 10 each",
    )
