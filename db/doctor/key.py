"""Checks what keeps a key's rows one, and what may change keys: indexes, foreign keys, triggers."""

from collections.abc import Iterator

import psycopg

from db.doctor.check import ADVICE, FAIL, OK, Check
from db.doctor.definition import indexes, made_by
from db.doctor.lookup import lookup
from db.header import quoted
from db.pipeline import Row
from db.resources import Resource
from db.way_out.change import Refused, Session, ask
from db.way_out.enforce import is_alike
from db.way_out.guard import guard_status
from db.way_out.kind import why_not_ordinary
from db.way_out.references import held_against


def checks(connection: Session, resource: Resource) -> Iterator[Check]:
    """Yield a check of the lookup and one of the key, and what is wrong around them."""
    yield from lookup(connection, resource)
    unique = _unique(connection, resource)
    yield unique
    if unique.level != OK:
        yield from _key_changes(connection, resource)
    yield from _foreign_keys(connection, resource)
    yield from _triggers(connection, resource)


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
