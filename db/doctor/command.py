"""Is this database fit for the guarantees of the service? One line for each check."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import psycopg
from msgspec.structs import replace
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from db.doctor import key, prepared, server, table
from db.doctor.check import ADVICE, FAIL, OK, Check, print_all
from db.doctor.trial import trial
from db.loaders import LOADERS
from db.resources import RESOURCES, Resource, parents
from db.session import TABLES, conninfo, pin, service_settings
from db.settings import Settings
from db.way_out.change import Session, ask


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
        merged = list(_or_fail(connection, "merged", table.merged(connection)))
        yield from chain(*tables.values(), merged)
        failed = {name for name, found in tables.items() if _fails(found)}
        # For these no resource is tried.
        common = [check.subject for check in (writable, *merged) if check.level == FAIL]
        for resource in resources:
            name = resource.name
            for check in _or_fail(connection, name, key.checks(connection, resource)):
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
    return _or_fail(connection, resource.name, table.checks(connection, resource))


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
