"""Checks the tables: their kind, the role's rights on them, and whether the files fit them."""

from collections.abc import Iterator

from db.doctor import prepared
from db.doctor.check import ADVICE, FAIL, OK, Check
from db.header import quoted
from db.ours import why_not_ours
from db.pipeline import Row
from db.queries import QUERIES
from db.resources import Resource
from db.schema import is_sample
from db.way_out.change import Session, ask
from db.way_out.kind import why_not_ordinary

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

# The rights that the service's files need on a resource's table, and on the table merged.
NEEDED = ["SELECT", "INSERT", "DELETE"]
NEEDED_ON_MERGED = ["SELECT"]

NO_TABLE = "no such table in the search_path: run `python -m db init`"


def checks(connection: Session, resource: Resource) -> Iterator[Check]:
    """Yield what is wrong with a resource's table and files, or one line that says ok."""
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


def merged(connection: Session) -> Iterator[Check]:
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
