"""Is this database fit for the guarantees of the service? One line for each check."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import psycopg
from msgspec.structs import replace
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from db.doctor import prepared, server
from db.doctor.check import ADVICE, FAIL, OK, Check, print_all
from db.doctor.definition import indexes, made_by
from db.doctor.lookup import lookup
from db.doctor.trial import trial
from db.header import quoted
from db.loaders import LOADERS
from db.ours import why_not_ours
from db.pipeline import Row
from db.queries import QUERIES
from db.resources import RESOURCES, Resource, parents
from db.schema import is_sample
from db.session import TABLES, conninfo, pin, service_settings
from db.settings import Settings
from db.way_out.change import Refused, Session, ask
from db.way_out.enforce import is_alike
from db.way_out.guard import guard_status
from db.way_out.kind import why_not_ordinary
from db.way_out.references import held_against

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

# The rights that the service's files need on a resource's table, and on the table merged.
NEEDED = ["SELECT", "INSERT", "DELETE"]
NEEDED_ON_MERGED = ["SELECT"]

NO_TABLE = "no such table in the search_path: run `python -m db init`"


def examine(url: str, settings: Settings, names: Iterable[str] = RESOURCES) -> bool:
    """Print a line for each check, and return whether none is FAIL.

    Raises psycopg.Error if the server cannot be reached.
    """
    return print_all(checks(url, settings, names))


@contextmanager
def session(settings: Settings) -> Iterator[Session]:
    """Connect as the service does, but also to a standby. Raises psycopg.Error."""
    with _connect(conninfo(settings)) as connection:
        # Where a policy hides rows, a line says so. With row_security off, as in the service, the
        # checks' own statements would fail there.
        pin(connection, {**service_settings(settings), "row_security": "on"})
        yield connection


def checks(url: str, settings: Settings, names: Iterable[str] = RESOURCES) -> Iterator[Check]:
    """Connect, and yield each check. Raises psycopg.Error."""
    with session(replace(settings, database_url=url)) as connection:
        (row,) = ask(connection, "way_out/doctor/server")
        yield server.version(row)
        writable = server.writable(row)
        yield writable
        yield server.durable(row)
        resources = [RESOURCES[name] for name in names]
        tables = {each.name: list(of_resource(connection, each)) for each in resources}
        merged = list(_or_fail(connection, "merged", _merged(connection)))
        yield from chain(*tables.values(), merged)
        failed = {name for name, found in tables.items() if _fails(found)}
        # For these no resource is tried.
        common = [check.subject for check in (writable, *merged) if check.level == FAIL]
        for resource in resources:
            name = resource.name
            for check in _or_fail(connection, name, _of_lookup_and_key(connection, resource)):
                if check not in tables[name]:
                    yield check
            # A trial of a table that has failed a check would fail for the same reason, and so
            # would that of its child, for which it may insert a row.
            why_not = [*common, *(each for each in _lineage(resource) if each in failed)]
            if why_not:
                detail = f"not tried, because of the FAIL of {', '.join(why_not)}"
                yield Check(ADVICE, f"{name} trial", detail)
            else:
                yield from prepared.way_out(connection, resource)
                yield from _or_fail(connection, f"{name} trial", trial(connection, resource))
        yield from _or_fail(connection, "schemas", _creators(connection))
        yield server.role(row)
        yield server.connections(row, settings)
        yield server.serializable(row)
        yield server.predicate_locks(row, ask(connection, "pages")[0]["pages"])


def _fails(found: list[Check]) -> bool:
    return any(check.level == FAIL for check in found)


def _lineage(resource: Resource) -> list[str]:
    """Return the names of a resource, its parents, and theirs."""
    found = [resource.name]
    for name in found:  # the list grows
        found += {*parents(RESOURCES, name).values()}.difference(found)
    return found


def _connect(url: str) -> Session:
    try:
        connection = psycopg.connect(
            url, autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
        )
    except psycopg.OperationalError:
        # The first attempt asks for a host that takes writes, as the service does. Only if there is
        # none, any host will do.
        if conninfo_to_dict(url)["target_session_attrs"] == "any":
            raise
        return _connect(make_conninfo(url, target_session_attrs="any"))
    for type_ in ("date", "timestamp", "timestamptz"):
        # They load what Python cannot hold, such as 'infinity', as None.
        connection.adapters.register_loader(type_, LOADERS[type_])
    return connection


def _or_fail(connection: Session, subject: str, found: Iterator[Check]) -> Iterator[Check]:
    """Yield checks, and a FAIL where PostgreSQL refuses to answer. Raises psycopg.Error if it ends.

    So one resource for which a right is missing keeps no other one from being checked.
    """
    try:
        yield from found
    except psycopg.Error as error:
        if connection.closed:
            raise
        yield Check(FAIL, subject, prepared.told(error))


def of_resource(connection: Session, resource: Resource) -> Iterator[Check]:
    """Yield what is wrong with a resource's table and files, or one line that says ok."""
    return _or_fail(connection, resource.name, _of_resource(connection, resource))


def _of_resource(connection: Session, resource: Resource) -> Iterator[Check]:
    name, table = resource.name, resource.table
    # A column that the header calls `or NULL` is meant to be nullable.
    key = [field.name for field in resource.key if not field.optional]
    found = ask(connection, "way_out/doctor/table", table, NEEDED, _needless(NEEDED), key)
    if not found:
        detail = (
            NO_TABLE
            if is_sample()
            else f"there is no table {table}, or its schema is not in the search_path"
        )
        yield Check(FAIL, name, detail)
        return
    lines = [
        *prepared.checks(connection, resource),
        *_types(connection, resource),
        *_kind(connection, resource),
        *_table(name, table, found[0], NEEDED),
    ]
    yield from lines or [Check(OK, name, "columns and rights")]


def _of_lookup_and_key(connection: Session, resource: Resource) -> Iterator[Check]:
    yield from lookup(connection, resource)
    unique = _unique(connection, resource)
    yield unique
    if unique.level != OK:
        yield from _key_changes(connection, resource)
    yield from _foreign_keys(connection, resource)
    yield from _triggers(connection, resource)


def _merged(connection: Session) -> Iterator[Check]:
    """Yield what is wrong with the table merged, or one line that says ok."""
    needless = _needless(NEEDED_ON_MERGED)
    found = ask(connection, "way_out/doctor/table", "merged", NEEDED_ON_MERGED, needless, [])
    if not found:
        yield Check(FAIL, "merged", NO_TABLE)
        return
    if reason := why_not_ours(connection):
        yield Check(FAIL, "merged", reason)
        return
    lines = list(_table("merged", "merged", found[0], NEEDED_ON_MERGED))
    if message := prepared.refusal(connection, QUERIES["kept"]):
        lines.insert(0, Check(FAIL, "merged", f"sql/kept.sql: {message}"))
    yield from lines or [Check(OK, "merged", "columns and rights")]


def _needless(needed: list[str]) -> list[str]:
    return [right for right in RIGHTS if right not in needed]


def _types(connection: Session, resource: Resource) -> Iterator[Check]:
    types = {field.name: field.type for field in resource.key}
    for column in ask(connection, "way_out/doctor/key_types", resource.table, list(types)):
        # A lookup by citext compares without case, just as a constraint on the column does.
        if not (column["type"].endswith("citext") and types[column["name"]].endswith("citext")):
            detail = f"{column['name']} is {column['type']}, which {column['trouble']}"
            yield Check(FAIL, resource.name, detail)


def _kind(connection: Session, resource: Resource) -> Iterator[Check]:
    (kind,) = ask(connection, "way_out/kind", resource.table)
    reason = why_not_ordinary(resource.table, kind)
    if kind["kind"] == "f":
        detail = f"{reason}: conflicts of serializable transactions are not seen there"
        yield Check(FAIL, resource.name, detail)
    elif kind["kind"] in ("v", "m"):
        detail = f"{reason}: what is stored behind it cannot be checked"
        yield Check(FAIL, resource.name, detail)
    elif reason:
        detail = f"{reason}: the service works, but merge, guard and enforce refuse it"
        yield Check(ADVICE, resource.name, detail)


def _table(subject: str, name: str, table: Row, needed: list[str]) -> Iterator[Check]:
    """Yield what is wrong by the row of way_out/doctor/table.sql."""
    if table["unlogged"]:
        yield Check(FAIL, subject, f"a crash empties it: ALTER TABLE {name} SET LOGGED;")
    if table["row_security"]:
        detail = "row security hides rows from this role, and so makes duplicates"
        yield Check(FAIL, subject, detail)
    if table["missing"]:
        yield Check(FAIL, subject, f"the role lacks {', '.join(table['missing'])}")
    if table["owned"]:
        detail = f"the role owns it; the service needs no more than {', '.join(needed)}"
        yield Check(ADVICE, subject, detail)
    elif table["surplus"]:
        detail = f"the role has {', '.join(table['surplus'])}, which the service does not need"
        yield Check(ADVICE, subject, detail)
    for column in map(quoted, table["nullable"]):
        detail = (
            f"{column} may be NULL, and rows where it is have no key:"
            f" ALTER TABLE {name} ALTER {column} SET NOT NULL;"
        )
        yield Check(ADVICE, subject, detail)


def _wrong_indexes(name: str, wanted: Row, index: Row | None, others: list[Row]) -> str | None:
    """Return what to do about a unique index in the way of the one that index.sql makes."""
    for other in others:
        if not (other["mine"] and other["is_unique"] and other["keys"] == wanted["keys"]):
            continue
        if index or not is_alike(other, wanted):
            return f"concurrent creators get 422 by the unique index {other['sql_name']}: drop it"
        return (
            f"{other['sql_name']} is unique, but concurrent creators get 422 by it unless it is"
            f" called so: ALTER INDEX {other['sql_name']} RENAME TO {quoted(name)};"
        )
    if index and not (index["mine"] and index["is_unique"] and is_alike(index, wanted)):
        return f"{name} is an index of something else: rename it first"
    return None


def _unique(connection: Session, resource: Resource) -> Check:
    name = f"{resource.name}_key"
    subject = f"{resource.name} key"
    index, others = indexes(connection, resource, "key")
    try:
        wanted = made_by(connection, resource, "index")
    except (Refused, psycopg.Error) as error:
        if index:
            why = str(error).partition("\n")[0]
            return Check(ADVICE, subject, f"whether {name} is what index.sql makes: {why}")
    else:
        if detail := _wrong_indexes(name, wanted, index, others):
            return Check(FAIL, subject, detail)
    guard = guard_status(connection, resource)
    kinds = ask(connection, "way_out/kind", resource.table)
    whole = index and kinds and kinds[0]["kind"] == "p"  # it covers all partitions
    if kinds and why_not_ordinary(resource.table, kinds[0]) and not whole:
        return Check(
            ADVICE,
            subject,
            "neither guard nor constraint can hold for this kind of table: one row for a key only"
            " while all writers go through the service",
        )
    if index and index["valid"] and index["is_constraint"]:
        return Check(OK, subject, f"the constraint {name} holds for all writers")
    if index and index["valid"] and "constraint" not in resource.files:
        return Check(OK, subject, f"the unique index {name} holds for all writers")
    if index:
        state = "not yet a constraint" if index["valid"] else "INVALID"
        return Check(ADVICE, subject, f"{name} is {state}: run `python -m db enforce` again")
    if guard == "on":
        return Check(OK, subject, "no constraint, but the guard is on and holds for all writers")
    return Check(
        ADVICE,
        subject,
        f"no constraint, and the guard is {guard}: one row for a key only while all"
        " writers go through the service, or run `python -m db guard on`",
    )


def _key_changes(connection: Session, resource: Resource) -> Iterator[Check]:
    """Yield each foreign key whose ON DELETE or ON UPDATE changes keys, which may double one.

    The service itself deletes parents, so that ON DELETE is a failure. It updates none, so that ON
    UPDATE, by which only other writers change keys, is advice.
    """
    columns = [field.name for field in resource.key]
    index = f"{resource.name}_lookup"
    for key in ask(connection, "way_out/doctor/key_changes", resource.table, columns, index):
        for level, event, action in (
            (FAIL, "DELETE", key["on_delete"]),
            (ADVICE, "UPDATE", key["on_update"]),
        ):
            if action:
                yield Check(
                    level,
                    f"{resource.name} key",
                    f"{quoted(key['name'])} is ON {event} {action}, so that a {event} of"
                    f" {key['referred']} changes keys here and may make a second row for one:"
                    " run `python -m db guard on` or `python -m db enforce`",
                )


def _foreign_keys(connection: Session, resource: Resource) -> Iterator[Check]:
    name = resource.name
    foreign_keys = ask(connection, "way_out/foreign_keys", *held_against(resource))
    for column in [key["reference"] for key in foreign_keys if key["referring"] is None]:
        detail = f"{column} has no foreign key to {name}, so its rows may refer to one that is gone"
        yield Check(FAIL, f"{name} references", detail)
    for column in [key["referring"] for key in foreign_keys if key["reference"] is None]:
        yield Check(
            ADVICE,
            f"{name} references",
            f"{column} refers to {name}, and merge refuses to run: see docs/duplicates.md on how to"
            " teach it",
        )


def _triggers(connection: Session, resource: Resource) -> Iterator[Check]:
    found = ask(connection, "way_out/doctor/statement_triggers", resource.table)
    if names := [row["name"] for row in found]:
        yield Check(
            ADVICE,
            f"{resource.name} triggers",
            f"each POST fires {', '.join(names)}, FOR EACH STATEMENT, even where its key has a row;"
            " with PIPELINE=0 only a POST of a new key does",
        )


def _creators(connection: Session) -> Iterator[Check]:
    found = ask(connection, "way_out/doctor/creators", TABLES)

    def who(privilege: str, preposition: str) -> str:
        return "; ".join(
            f"{', '.join(row['roles'])} {preposition} {row['place']}"
            for row in found
            if row["privilege"] == privilege
        )

    if names := who("CREATE", "in"):
        detail = f"others may create there what looks like a table or a function of ours: {names}"
        yield Check(ADVICE, "schemas", detail)
    else:
        yield Check(OK, "schemas", "nobody else may create there")
    if names := who("TRIGGER", "on"):
        detail = f"others may make some, which run with the rights of this role: {names}"
        yield Check(ADVICE, "triggers", detail)
