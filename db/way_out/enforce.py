"""Enforce: builds a unique index for each key, a constraint if possible, and drops the guard."""

from collections.abc import Iterable
from itertools import islice

import psycopg

from db.doctor.definition import indexes, made_by
from db.pipeline import Row
from db.resources import RESOURCES, Resource
from db.texts import say
from db.way_out.change import (
    Refused,
    Session,
    ask,
    change,
    drop_index,
    for_each,
    sql_of,
    wait_for_turn,
)
from db.way_out.duplicates import duplicates, key_text
from db.way_out.guard import guard, refuse_others_objects
from db.way_out.kind import refuse_relatives


def enforce(connection: Session, names: Iterable[str] = RESOURCES) -> None:
    """Make each key unique and drop its guard.

    Raises Refused, which names the resources whose guard is as it was.
    """
    wait_for_turn(connection)

    def enforce_one(name: str) -> None:
        resource = RESOURCES[name]
        refuse_relatives(connection, resource)
        refuse_others_objects(connection, resource)  # guard off, below, would drop them
        refuse_duplicates(connection, name)
        make_unique(connection, resource)
        guard(connection, "off", [name])

    for_each(connection, names, enforce_one)


def refuse_duplicates(connection: Session, resource: str) -> None:
    """Raise Refused, which names some keys, if several rows share a key."""
    rows = duplicates(connection, resource)
    some = list(islice(rows, 3))
    if some:
        names = ", ".join(key_text(row) for row in some)
        raise Refused(
            f"{resource} has {some[0]['total']:,} keys with several rows ({names}, ...):"
            " run `python -m db guard on` and `python -m db merge --apply` first"
        )


def make_unique(connection: Session, resource: Resource) -> None:
    """Build the unique index unless it is there, and make it a constraint if it can be one.

    Raises Refused if there are duplicates or the name is another index's, or psycopg.Error.
    """
    name = f"{resource.name}_key"
    index = key_index(connection, resource)
    if index and not index["valid"]:
        say(f"Dropping {name}, which an earlier run left INVALID.")
        drop_index(connection, resource.table, name)
        index = None
    if not index:
        try:
            say(f"Building {name}.")
            ask(connection, f"{resource.name}/index")
        except psycopg.Error as error:
            if not connection.closed and key_index(connection, resource):
                drop_index(connection, resource.table, name)
            if not isinstance(error, psycopg.errors.UniqueViolation):
                raise
            refuse_duplicates(connection, resource.name)
            raise
    if "constraint" not in resource.files:
        say(f"{name} is a unique index of {resource.table}, and holds for all writers.")
        return
    if not index or not index["is_constraint"]:
        change(connection, [resource.table], [sql_of(f"{resource.name}/constraint")])
    say(f"{name} is a constraint of {resource.table}.")


def refuse_enforced(connection: Session, resource: Resource) -> None:
    """Raise Refused if the key is unique, because undo puts back rows that share it."""
    if index := key_index(connection, resource):
        what = "constraint" if index["is_constraint"] else "index"
        raise Refused(f"{resource.name}_key refuses duplicates: drop that {what} first")


def key_index(connection: Session, resource: Resource) -> Row | None:
    """Return the unique index with the key's name, or None.

    Raises Refused if the index of that name is one of something else.
    """
    named, _ = indexes(connection, resource, "key")
    if named is None or not named["is_unique"]:
        return None
    if named["mine"] and is_alike(named, made_by(connection, resource, "index")):
        return named
    raise Refused(f"{named['name']} is an index of something else: rename it first")


def is_alike(index: Row, other: Row) -> bool:
    """Tell whether two unique indexes refuse the same rows."""
    return all(index[what] == other[what] for what in ("keys", "nulls_equal", "predicate"))
