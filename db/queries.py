"""The SQL files, and the one thing the service is about: get or create a row."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import psycopg

from db.engine import ENGINES
from db.pool import Connection, Pool, Row
from db.resources import RESOURCES, ROOT, SAMPLE
from db.samples import sample
from db.transaction import LateInsert, SchemaMissing, SettingsLost, read

Statement = tuple[bytes, Sequence[Any]]

# The questions of db.inspection, which come and go while the service runs.
INSPECT = ROOT / "sql" / "inspect"

# Scripts, and no statements.
ROLES = ROOT / "sql" / "roles.sql"
SCRIPTS = (ROLES, *(engine.schema for engine in ENGINES.values()))

# Blanks and comments; literals, with escapes or without; and what stays as it is.
_PIECE = re.compile(
    r"(?P<blank>\s*(?:--[^\r\n]*\s*)+|\s*[\r\n]\s*)"
    r"|(?<![\w&])[eE]'(?P<escaped>(?:[^'\\]|\\.|'')*)'"
    r"|(?<![\w&])'(?P<plain>(?:[^']|'')*)'"
    r"""|'[^']*'|"[^"]*"|/\*.*?\*/|(?P<tag>\$\w*\$).*?(?P=tag)""",
    re.DOTALL,
)

# "customers/select" to the file's bytes, which is what PostgreSQL gets: first what the service says
# for itself, then the resources' own.
QUERIES = {
    path.relative_to(ROOT / "sql").with_suffix("").as_posix(): path.read_bytes()
    for path in sorted((ROOT / "sql").rglob("*.sql"))
    if path not in SCRIPTS and not {INSPECT, *SAMPLE} & {*path.parents}
}
for _resource in RESOURCES.values():
    for _name, _file in _resource.files.items():
        QUERIES[f"{_resource.name}/{_name}"] = _file.text.encode()


def statement(connection: Connection, name: str) -> str:
    """Return the name of the file for this connection's engine."""
    of_engine = f"{connection.engine.folder}{name}"
    return of_engine if of_engine in QUERIES else name


class Outcome(NamedTuple):
    """What get_or_create() found or made."""

    row: Row
    copies: int  # how many rows share the key; more than 1 only where legacy rows do
    created: bool


class Retired(NamedTuple):
    """A row that a merge moved away."""

    kept: str  # the id of the row that it kept instead


async def get_or_create(
    connection: Connection, resource: str, key: Sequence[Any], attributes: Sequence[Any] = ()
) -> Outcome:
    """Return the row of `key`, creating it with these attributes if there is none.

    One row per key holds only inside a SERIALIZABLE transaction that has committed: call it
    through db.transaction.serializable(). Raises LateInsert if the transaction became too old
    between its steps.
    """
    select = statement(connection, f"{resource}/select")
    found = await (await connection.execute(QUERIES[select], key)).fetchone()
    if found is not None:
        return Outcome(row=found, copies=found.pop("copies"), created=False)
    insert = statement(connection, f"{resource}/insert")
    created = await (await connection.execute(QUERIES[insert], [*key, *attributes])).fetchone()
    if created is None:
        raise LateInsert
    return Outcome(row=created, copies=1, created=True)


async def select(pool: Pool, query: str, parameters: list[Any], seconds: float) -> list[Row]:
    """Run one reading SQL file. `seconds` and the errors are those of db.transaction.read()."""

    async def work(connection: Connection) -> list[Row]:
        return await connection.rows(QUERIES[statement(connection, query)], parameters)

    return await read(pool, work, seconds=seconds)


async def look_up(pool: Pool, resource: str, id_: str, seconds: float) -> Row | Retired | None:
    """Return the row with this id, or which one a merge kept in its place, or None.

    `seconds` bounds all queries together; the errors are those of db.transaction.read().
    """
    deadline = monotonic() + seconds
    for _ in range(2):  # the merge may be undone between the two queries
        if rows := await select(pool, f"{resource}/get", [id_], deadline - monotonic()):
            return rows[0]
        if kept := await select(pool, "kept", [resource, id_], deadline - monotonic()):
            return Retired(str(kept[0]["kept"]))
    return None


def shown(path: Path) -> str:
    """Return the path of a file as one sees it from the checkout."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def explained(resource: str, file: str, form: bytes = b"") -> tuple[bytes, list[str]]:
    """Return the statement that asks for a file's plan, and values of its parameters' types.

    PostgreSQL looks at tables, columns, types and rights, and runs nothing.
    """
    values = [sample(each) for each in RESOURCES[resource].files[file].parameters]
    return b"EXPLAIN " + form + b"\n" + QUERIES[f"{resource}/{file}"], values


def one_line(sql: bytes) -> str:
    """Return an SQL file's statement on one line and without its comments, to paste."""
    return flat(sql.decode())


def flat(sql: str) -> str:
    """Return a statement, or a part of one, on one line and without its comments."""
    return _PIECE.sub(_flat, sql).strip()


def _flat(piece: re.Match[str]) -> str:
    if piece["blank"]:
        return " "
    text = piece["escaped"]
    if piece["plain"] is not None:
        text = piece["plain"].replace("\\", r"\\")
    if text is None or not re.search(r"[\r\n]", text):
        return piece[0]
    # A backslash stays with what it escapes, unless that is a line break, which needs none.
    breaks = {"\r": r"\r", "\n": r"\n"}
    return "E'{}'".format(
        re.sub(r"\\[^\r\n]|\\?([\r\n])", lambda each: breaks.get(each[1], each[0]), text)
    )


async def check_usable(connection: Connection, resources: Iterable[str]) -> None:
    """Raise an error if a POST would not be served.

    It is SchemaMissing, which names the resource, SettingsLost, or one of psycopg's.
    """
    needed: dict[str, list[Statement]] = {
        resource: [explained(resource, "select"), explained(resource, "insert")]
        for resource in resources
    }
    needed["merged"] = [(b"EXPLAIN " + QUERIES["kept"], ["", ""])]
    try:
        (answer,), *_ = await connection.rows_of_each(
            (QUERIES["session"], ()), *chain(*needed.values())
        )
    except psycopg.ProgrammingError:
        # Sent at once, they do not tell which one it was.
        for resource, statements in needed.items():
            try:
                await connection.rows_of_each(*statements)
            except psycopg.ProgrammingError as error:
                Connection.paths.clear()  # the table may have moved
                raise SchemaMissing(resource) from error
        raise
    if answer["read_only"]:
        raise psycopg.errors.ReadOnlySqlTransaction
    if answer["unset"] and connection.engine.planner_settings and not connection.settings:
        raise SettingsLost
