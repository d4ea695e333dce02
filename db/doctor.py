"""Is this database fit for the guarantees of the README? One line for each check."""

from collections.abc import Iterator

import psycopg
from msgspec.structs import replace
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from db.adoption import KEYS, key_index, known_references
from db.change import Connection, Refused, ask
from db.check import ADVICE, FAIL, OK, Check
from db.kind import why_not_ordinary
from db.lookup import lookup
from db.pool import Row
from db.queries import QUERIES
from db.session import TABLES, conninfo, pin, service_settings
from db.settings import INSPECTION_POOL_SIZE, Settings
from db.shortcomings import version_fault
from db.texts import say
from db.trial import INSERT_AGE, trial

NEEDED = {
    "departments": "SELECT INSERT DELETE",
    "employees": "SELECT INSERT DELETE",
    "merged": "SELECT",
}
RIGHTS = "SELECT INSERT UPDATE DELETE TRUNCATE REFERENCES TRIGGER"


def examine(url: str, settings: Settings) -> bool:
    """Print each check, and return whether none has failed.

    Raises psycopg.Error if the server cannot be reached.
    """
    healthy = True
    for check in checks(url, settings):
        say(f"{check.level:7}{check.subject}: {check.detail}")
        healthy &= check.level != FAIL
    return healthy


def checks(url: str, settings: Settings) -> Iterator[Check]:
    """Connect as the service does, but to a standby too, and yield each check."""
    with _connect(conninfo(replace(settings, database_url=url))) as connection:
        # row_security: where rows are hidden, one line says so, and no statement fails for it.
        pin(connection, {**service_settings(settings), "row_security": "on"})
        (server,) = ask(connection, "adoption/doctor/server")
        yield _version(server)
        writable = _writable(server)
        yield writable
        yield _durable(server)
        tables = [check for table in NEEDED for check in _table(connection, table)]
        yield from tables
        # What fails already would fail there again.
        on_trial = all(check.level != FAIL for check in (writable, *tables))
        for resource in KEYS:
            yield from lookup(connection, resource)
            yield _unique(connection, resource)
            yield from _foreign_keys(connection, resource)
            yield from _triggers(connection, resource)
            if on_trial:
                yield from trial(connection, resource)
        yield _creators(connection)
        yield _role(server)
        yield _connections(server, settings)
        yield _serializable(server)
        yield _predicate_locks(server)


def _connect(url: str) -> Connection:
    try:
        return psycopg.connect(url, autocommit=True, cursor_factory=RawCursor, row_factory=dict_row)
    except psycopg.OperationalError:
        # Only then: of several hosts the service passes over those that refuse writes.
        if conninfo_to_dict(url)["target_session_attrs"] == "any":
            raise
        return _connect(make_conninfo(url, target_session_attrs="any"))


def _version(server: Row) -> Check:
    version = f"PostgreSQL {server['version']}"
    if fault := version_fault(server["version_num"]):
        return Check(FAIL, "server", f"{version} {fault}")
    return Check(OK, "server", version)


def _writable(server: Row) -> Check:
    if server["standby"]:
        return Check(FAIL, "writes", "this is a standby: DATABASE_URL must lead to the primary")
    if server["read_only"]:
        return Check(FAIL, "writes", "the session is read-only: see default_transaction_read_only")
    return Check(OK, "writes", "this server takes them")


def _durable(server: Row) -> Check:
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


def _table(connection: Connection, name: str) -> Iterator[Check]:
    needed = NEEDED[name].split()
    needless = [right for right in RIGHTS.split() if right not in needed]
    found = ask(
        connection, "adoption/doctor/table", name, needed, needless, list(KEYS.get(name, ()))
    )
    if not found:
        yield Check(FAIL, name, "no such table in the search_path: run `python -m db init`")
        return
    (table,) = found
    wrong = []
    for query in QUERIES:
        if query.startswith(f"{name}/") or (name, query) == ("merged", "kept"):
            result = connection.pgconn.prepare(b"", QUERIES[query])
            if message := result.error_field(psycopg.pq.DiagnosticField.MESSAGE_PRIMARY):
                wrong.append(f"sql/{query}.sql: {message.decode()}")
    if table["unlogged"]:
        wrong.append(f"a crash empties it: ALTER TABLE {name} SET LOGGED;")
    if table["row_security"]:
        wrong.append("row security hides rows from this role, and so makes duplicates")
    if table["missing"]:
        wrong.append(f"the role lacks {', '.join(table['missing'])}")
    wrong += [
        f"{column['name']} is {column['type']}, which {column['trouble']}"
        for column in ask(connection, "adoption/doctor/key_types", name, list(KEYS.get(name, ())))
    ]
    kinds = ask(connection, "adoption/kind", name) if name in KEYS else []
    reason = next((why_not_ordinary(name, kind) for kind in kinds), None)
    if kinds and kinds[0]["kind"] == "f":
        wrong.append(f"{reason}: conflicts of serializable transactions are not seen there")
    elif kinds and kinds[0]["kind"] in ("v", "m"):
        wrong.append(f"{reason}: what is stored behind it cannot be checked")
    elif reason:
        yield Check(
            ADVICE, name, f"{reason}: the service works, but merge, guard and enforce refuse it"
        )
    for detail in wrong:
        yield Check(FAIL, name, detail)
    if table["owned"]:
        yield Check(
            ADVICE, name, f"the role owns it; the service needs no more than {', '.join(needed)}"
        )
    elif table["surplus"]:
        yield Check(
            ADVICE,
            name,
            f"the role has {', '.join(table['surplus'])}, which the service does not need",
        )
    elif not wrong:
        yield Check(OK, name, "columns and rights")
    for column in table["nullable"]:
        yield Check(
            ADVICE,
            name,
            f"{column} may be NULL, and rows where it is have no key:"
            f" ALTER TABLE {name} ALTER {column} SET NOT NULL;",
        )


def _unique(connection: Connection, resource: str) -> Check:
    name = f"{resource}_key"
    subject = f"{resource} key"
    others = ask(connection, "adoption/doctor/other_unique", resource, list(KEYS[resource]), name)
    if others:
        other = others[0]["name"]
        if others[0]["partial"] or others[0]["taken"]:
            detail = f"concurrent creators get 422 by the unique index {other}: drop it"
        else:
            detail = (
                f"{other} is unique, but concurrent creators get 422 by it unless it is called so:"
                f" ALTER INDEX {other} RENAME TO {name};"
            )
        return Check(FAIL, subject, detail)
    try:
        index = key_index(connection, resource)
    except Refused as error:
        return Check(FAIL, subject, str(error))
    (guard,) = ask(connection, "adoption/guard_status", resource)
    kinds = ask(connection, "adoption/kind", resource)
    whole = index and kinds and kinds[0]["kind"] == "p"  # an index that is in all partitions
    if kinds and why_not_ordinary(resource, kinds[0]) and not whole:
        return Check(
            ADVICE,
            subject,
            "neither guard nor constraint can hold for this kind of table: one row for a key only"
            " while all writers go through the service",
        )
    if index and index["valid"] and index["is_constraint"]:
        return Check(OK, subject, f"the constraint {name} holds for all writers")
    if index:
        state = "not yet a constraint" if index["valid"] else "INVALID"
        return Check(ADVICE, subject, f"{name} is {state}: run `python -m db enforce` again")
    if guard["status"] == "on":
        return Check(OK, subject, "no constraint, but the guard is on and holds for all writers")
    return Check(
        ADVICE,
        subject,
        f"no constraint, and the guard is {guard['status']}: one row for a key only while all"
        " writers go through the service, or run `python -m db guard on`",
    )


def _foreign_keys(connection: Connection, resource: str) -> Iterator[Check]:
    subject = f"{resource} references"
    there = {key["referring"] for key in ask(connection, "adoption/foreign_keys", resource)}
    known = set(known_references(resource))
    for column in sorted(known - there):
        yield Check(
            FAIL, subject, f"{column} has no foreign key to {resource}: rows may lose theirs"
        )
    for column in sorted(there - known):
        yield Check(
            ADVICE,
            subject,
            f"{column} refers to {resource}, and merge refuses to run: see the README on how to"
            " teach it",
        )


def _triggers(connection: Connection, resource: str) -> Iterator[Check]:
    names = [row["name"] for row in ask(connection, "adoption/doctor/statement_triggers", resource)]
    if names:
        yield Check(
            ADVICE,
            f"{resource} triggers",
            f"each POST fires {', '.join(names)}, FOR EACH STATEMENT, even where its key has a row;"
            " with PIPELINE=0 only a POST of a new key does",
        )


def _role(server: Row) -> Check:
    powers = {
        "superuser": "is a superuser",
        "bypasses_row_security": "bypasses row security",
        "creates_roles": "may create roles",
        "creates_databases": "may create databases",
    }
    if not server["superuser"]:  # which has them all
        powers["replicates"] = "may replicate"
        powers["creates_in_public"] = "may create tables in the schema public"
    has = [text for name, text in powers.items() if server[name]]
    # Of this one the comment in sql/roles.sql says what it is for.
    if member_of := [name for name in server["member_of"] if name != "pg_read_all_stats"]:
        has.append(f"is a member of {', '.join(member_of)}")
    if has:
        return Check(
            ADVICE, "role", f"{server['role']} {', '.join(has)}: the service needs none of it"
        )
    return Check(OK, "role", f"{server['role']} has no powers over the server")


def _creators(connection: Connection) -> Check:
    found = ask(connection, "adoption/doctor/creators", TABLES)
    if not found:
        return Check(OK, "schemas", "nobody else may create there")
    who = "; ".join(f"{', '.join(row['roles'])} in {row['schema']}" for row in found)
    return Check(
        ADVICE,
        "schemas",
        f"others may create there what looks like a table or a function of ours: {who}",
    )


def _connections(server: Row, settings: Settings) -> Check:
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


def _predicate_locks(server: Row) -> Check:
    held, most = server["predicate_locks_held"], server["predicate_locks"]
    detail = f"{held:,} of {most:,} in use"
    # Beyond, transactions fail with 53200, and requests get 503.
    if held > most / 2:
        return Check(ADVICE, "predicate locks", f"{detail}: raise max_pred_locks_per_transaction")
    return Check(OK, "predicate locks", detail)


def _serializable(server: Row) -> Check:
    most = server["serializable"]
    rate = round(most / INSERT_AGE)
    # Twice what two workers on two cores have been seen to send.
    level = OK if rate >= 20_000 else ADVICE
    return Check(
        level,
        "serializable transactions",
        f"the server remembers {most:,}, enough for {rate:,} a second where an insert comes within"
        f" {INSERT_AGE * 1000:.0f} ms of its lookup; max_prepared_transactions or max_connections,"
        " which need a restart, raise it by 10 each",
    )
