"""Adopt: writes a table's resource, a folder of SQL files, from templates and the catalog."""

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import RawCursor
from psycopg.rows import dict_row

from db.adopt.catalog import oid_of, read_table
from db.adopt.files import render
from db.adopt.record import commands, edited_files, sums, write_files
from db.adopt.references import read_references
from db.adopt.table import Table
from db.adopt.takes import choose_takes
from db.doctor import prepared
from db.engine import ENGINES, named
from db.header import HeaderError
from db.loaders import load_as_text
from db.ours import why_not_ours
from db.queries import QUERIES, flat
from db.resources import FOLDER, MANY, NAME, REQUESTS, RESERVED, Resource, file_of, read_resource
from db.session import MEANING, SET_CONFIG, parameters
from db.settings import Settings
from db.texts import say
from db.way_out.change import Refused, Session, ask, patient
from db.way_out.kind import why_not_ordinary

# Files that a folder of an earlier version lacks. They must fit the files of REQUESTS.
LATER = (*MANY, "merged")


def adopt(
    url: str, given: argparse.Namespace, settings: Settings, resources: Path = FOLDER
) -> bool:
    """Write the folder of a resource, say what was found, and return whether all files fit.

    Raises Refused or psycopg.Error.
    """
    with _connect(url) as connection:
        engine = ENGINES[settings.engine or named(connection.pgconn.parameter_status)]
        table = _read(connection, given)
        given_for = {table.name: given}
        tables = [table]
        adopted = commands(resources)
        _check_others(connection, table, given, resources, adopted)
        for name, command in adopted.items():
            with suppress(Refused, psycopg.Error):  # the other folder's table may be gone
                other = _read(connection, command)
                if other.name == name != table.name:
                    tables.append(other)
                    given_for[name] = command
        for each in tables:
            read_references(connection, each, tables)
        if table.keep.referring and not any(each.to_id for each in table.references):
            raise Refused(f"no foreign key refers to {table.name}, so --keep cannot count by it")

        def write(each: Table) -> bool:
            """Write a table's files, or say why the service would not start with them."""
            folder, command = resources / each.name, given_for[each.name]
            files = render(each, tables, distributed=bool(engine.folder))
            try:
                edited = [] if command.force else edited_files(folder, files)
                if left := _leave_out_new(folder, files, edited):
                    say(f"{folder}: {left} not written, because they might not fit what was edited")
                faults = _refusals(connection, folder, files, edited)
                if not faults:
                    write_files(folder, files, edited, command)
            except OSError as error:
                raise Refused(f"{error.filename}: {error.strerror}") from error
            for fault in faults:
                say(fault)
            if faults:
                say(f"{folder}: nothing is written, for the service would not start with that.")
            return not faults

        well = write(table)
        if well:
            well = _report(connection, table, resources / table.name)
            # The folders of parents and children have files about this table, because merge moves
            # its rows, too.
            for other in tables:
                if other is not table and _related(table, other):
                    well &= write(other)
        say(f"Next: {'python -m db init' if well else 'mend that, and adopt it again'}")
    return well


def _connect(url: str) -> Session:
    """Connect, and keep the role's own search_path, by which the table is looked up."""
    connection = psycopg.connect(
        patient(url, "adopt"), autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
    )
    connection.execute(SET_CONFIG, parameters(MEANING, None, transaction=False))
    load_as_text(connection.adapters)
    return connection


def _read(connection: Session, given: argparse.Namespace) -> Table:
    try:
        "".join(map(str, _texts(given))).encode()
    except UnicodeEncodeError:
        raise Refused("what was given is not UTF-8") from None
    table = read_table(connection, given.table, given.key, given.where, given.keep, given.name)
    if not NAME.fullmatch(table.name) or table.name in RESERVED:
        raise Refused(f"a resource cannot be called {table.name}: give it a name with --as NAME")
    _choose_attributes(table, given.attributes)
    _note_lists(table)
    choose_takes(table, given)
    table.refers, table.absorb = given.refers or [], given.absorb or []
    _note_deletes(table)
    return table


def _texts(given: argparse.Namespace) -> Iterator[object]:
    """Yield the values of all options. An option that may be repeated has a list of them."""
    for value in vars(given).values():
        yield from value if isinstance(value, list) else [value]


def _check_others(
    connection: Session,
    table: Table,
    given: argparse.Namespace,
    resources: Path,
    adopted: dict[str, argparse.Namespace],
) -> None:
    """Raise Refused if the folder is another table's, or if another folder is of this table."""
    for name, command in adopted.items():
        oid = oid_of(connection, command.table)
        folder = resources / name
        if name == table.name:
            is_other = command.table != given.table if oid is None else oid != table.oid
            if is_other:  # merge --undo would put the other table's rows into this one
                raise Refused(
                    f"{folder}: this folder is of {command.table}; give another name with --as"
                )
        elif oid == table.oid and any((folder / f"{each}.sql").is_file() for each in REQUESTS):
            raise Refused(
                f"{folder}: {command.table} is served by this folder already, and merge is unsafe"
                f" with two resources of one table: adopt it as {name}, or remove that folder first"
            )


def _choose_attributes(table: Table, names: str | None) -> None:
    """Set the table's attributes, and note which columns no request can set. Raises Refused.

    `names` are those of --attributes, or None.
    """
    key = [part.column for part in table.key]
    others = [each for each in table.columns if each not in key]
    has_default = table.id.default or not table.id.settable
    can_be = [
        each
        for each in others
        if each.settable and not each.unserved and not (each is table.id and has_default)
    ]
    if names is None:
        table.attributes = can_be
    else:
        wanted = [name for name in names.split(",") if name]
        if wrong := set(wanted) - {each.name for each in can_be}:
            raise Refused(f"{', '.join(sorted(wrong))}: no columns that a request can set")
        table.attributes = [each for each in can_be if each.name in wanted]
    if not has_default:
        if table.id not in table.attributes:
            table.attributes.insert(0, table.id)
        table.notes.append(
            f"{table.id.name} has no default, so that a request must bring one for a new row"
        )
    for column in others:
        if column.unserved:
            table.notes.append(f"{column.name} is left out: {column.unserved}")
        needed = not (column.optional or column.default) and column not in table.attributes
        if column.settable and needed:
            table.notes.append(
                f"{column.name} is NOT NULL, has no default, and no request sets it: unless a"
                " trigger does, the table refuses each new row"
            )


def _note_lists(table: Table) -> None:
    """Note the index that keeps lists from reading the rows that the condition leaves out."""
    if table.where:
        table.notes.append(
            f"CREATE INDEX CONCURRENTLY ON {table.table} ({table.id.sql})"
            f" WHERE {flat(table.where())}; keeps lists from reading the rows that --where leaves"
            " out, unless those are few"
        )


def _note_deletes(table: Table) -> None:
    """Note each foreign key by which a delete changes the keys of rows."""
    in_key = {part.column.sql for part in table.key}
    in_key |= {*table.where.columns.values()} if table.where else set()
    for column in table.columns:
        for parent in column.set_by if column.sql in in_key else []:
            table.notes.append(
                f"{column.name} is set to NULL or its default where a row of {parent} is deleted,"
                " which can give a key a second row without a request: the guard refuses that,"
                " and later the unique index"
            )


def _related(one: Table, other: Table) -> bool:
    return any(
        reference.oid == b.oid
        for a, b in ((one, other), (other, one))
        for reference in a.references
    )


def _leave_out_new(folder: Path, files: dict[str, str], edited: list[str]) -> str:
    """Drop the missing files of LATER from `files`, if a file of REQUESTS was edited.

    Returns their names and "is" or "are", or an empty text.
    """
    new = [f"{name}.sql" for name in LATER if not (folder / f"{name}.sql").exists()]
    if not (new and {f"{name}.sql" for name in REQUESTS} & {*edited}):
        return ""
    for name in new:
        files.pop(name, None)
    return f"{', '.join(new)} {'are' if len(new) > 1 else 'is'}"


def _refusals(
    connection: Session, folder: Path, files: dict[str, str], edited: list[str]
) -> list[str]:
    """Return why the service would not start with the new files, or PostgreSQL refuses them.

    The new files must fit together, and also fit the edited ones, which stay. This is checked
    before anything is written, because one wrong folder keeps all resources from being served.
    """
    new = {path: text.encode() for path, text in files.items()}
    gone = {*sums(folder)} - {*edited}
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.sql")}
    kept = {path: file.read_bytes() for path, file in there.items() if path not in gone}
    try:
        faults = [*_faults(connection, _resource(folder, new))]
        _resource(folder, {**kept, **{path: new[path] for path in new if path not in edited}})
    except HeaderError as error:
        return [str(error)]
    return faults


def _resource(folder: Path, contents: dict[str, bytes]) -> Resource:
    """Return the resource of a folder with these contents. Raises HeaderError."""
    files = {
        path.removesuffix(".sql"): file_of(folder / path, contents[path])
        for path in sorted(contents)
    }
    return Resource(folder.name, files)


# The report.


def _report(connection: Session, table: Table, folder: Path) -> bool:
    """Say what was found, and return whether PostgreSQL takes all files."""
    for note in table.notes:
        say(f"{table.name}: {note}.")
    with connection.transaction(force_rollback=True):
        connection.execute(b"SET LOCAL search_path = pg_catalog, pg_temp")
        (kind,) = ask(connection, "way_out/kind", table.full)
    if reason := why_not_ordinary(table.name, kind):
        say(f"{reason}: the service works, but merge, guard and enforce refuse it.")
    faults = list(_faults(connection, read_resource(folder)))
    for fault in faults:
        say(fault)
    duplicates = folder / "duplicates.sql"
    if duplicates.exists() and not faults:
        rows = connection.execute(duplicates.read_bytes()).fetchall()
        if rows:
            say(f"{rows[0]['total']:,} keys have {rows[0]['surplus']:,} rows too many.")
        else:
            say("Every key has one row.")
    return not faults


def _faults(connection: Session, resource: Resource) -> Iterator[str]:
    """Yield which files PostgreSQL refuses, and which headers differ from what it says."""
    with connection.transaction(force_rollback=True):
        if not ask(connection, "adopt/table", "merged"):
            # Some files need the table merged, which `python -m db init` makes only later.
            connection.execute(QUERIES["way_out/merged"])
        elif not why_not_ours(connection) and ask(connection, "way_out/merged_lacks")[0]["filled"]:
            connection.execute(QUERIES["way_out/merged_filled"])
        for check in (
            *prepared.checks(connection, resource),
            *prepared.way_out(connection, resource),
        ):
            yield check.detail
