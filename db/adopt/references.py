"""Reads from the catalog what refers to a table."""

from typing import Any

from db.adopt.catalog import BESIDE_TABLES, columns_of, find, is_plain
from db.adopt.column import Column
from db.adopt.reference import Reference, Unique
from db.adopt.table import Table
from db.header import names_of, quoted
from db.pipeline import Row
from db.way_out.change import Refused, Session, ask


def read_references(connection: Session, table: Table, known: list[Table]) -> None:
    """Add what refers to a table, and note what merge cannot follow.

    `known` has the tables that have resources. Raises Refused.
    """
    named = [_named(connection, text, table) for text in table.refers]
    refused = {}  # why merge cannot follow a reference, by its table and column
    with connection.transaction(force_rollback=True):
        connection.execute(b"SET LOCAL search_path = pg_catalog, pg_temp")
        for row in [*ask(connection, "adopt/references", table.oid), *named]:
            reference = _reference(connection, row, table, known)
            if isinstance(reference, Reference):
                table.references.append(reference)
                continue
            called = ", ".join(row["columns"])
            if row in named:
                raise Refused(f"--refers {row['bare']}.{called}: {reference}")
            if any(_on_the_same(row, other) for other in named):
                continue
            refused[f"{row['bare']}.{called}"] = reference
            table.notes.append(f"{row['bare']}.{called} refers to it, and {reference}")
    if unknown := {*table.absorb} - {each.folder for each in table.references if each.absorbed}:
        first = min(unknown)
        none = (
            "this is no reference of which unique indexes could break, or its table is adopted"
            " itself"
        )
        raise Refused(f"--absorb {first}: {refused.get(first, none)}")
    for each in table.references:
        if each.absorbed:
            _check_absorbed(each, table)


def _on_the_same(row: Row, other: Row) -> bool:
    """Tell whether a foreign key and one of --refers are on the same columns."""
    return all(row[each] == other[each] for each in ("oid", "columns", "refers_to"))


def _check_absorbed(reference: Reference, table: Table) -> None:
    """Raise Refused if rows of a reference of --absorb would not come back as they were."""
    for other in table.references:
        if other is not reference and other.oid == reference.oid:
            raise Refused(
                f"--absorb {reference.folder}: {other.folder} refers to {table.name}, too, and"
                " what is moved may refer only once"
            )
    if len(reference.uniques) > 1:
        names = " and ".join(unique.name for unique in reference.uniques)
        raise Refused(
            f"--absorb {reference.folder}: {names} could both be in the way, and what is moved may"
            " have one such index only"
        )


def _named(connection: Session, text: str, table: Table) -> Row:
    """Return for one of --refers such a row as adopt/references.sql returns for a foreign key."""
    reference, _, to = text.partition("=")
    names = names_of(reference)
    if not 2 <= len(names) <= 3 or ".".join(map(quoted, names)) != reference:
        raise Refused(f"--refers {text} must be TABLE.COLUMN or TABLE.COLUMN=COLUMN, as SQL has it")
    found = find(connection, ".".join(map(quoted, names[:-1])))
    target = to or table.id.name
    if target not in {column.name for column in table.columns}:
        raise Refused(f"--refers {text}: {table.name} has no column {target}")
    if target in {column.name for take in table.takes for column in take.columns}:
        raise Refused(f"--refers {text}: {target} is taken over from other rows")
    return {
        **found,
        "columns": [names[-1]],
        "refers_to": [target],
        "cascades": False,
        "named": True,
    }


def _reference(connection: Session, row: Row, table: Table, known: list[Table]) -> Reference | str:
    """Return the reference of a foreign key, or why merge cannot follow it."""
    named = row.get("named", False)
    if len(row["columns"]) > 1:
        return "merge refuses a foreign key of several columns"
    if row["refers_to"] != [table.id.name] and not named:
        return f"merge refuses one that does not refer to {table.id.name}, unless --refers names it"
    if row["bare"] in BESIDE_TABLES:
        return f"merge refuses {row['bare']}, whose name means something else in the files"
    key = [each["name"] for each in ask(connection, "adopt/row_key", row["oid"])]
    if not key:
        return (
            "merge refuses it, for its rows cannot be told apart without a primary key, or a unique"
            " index of columns that are NOT NULL"
        )
    served = next((each for each in known if each.oid == row["oid"]), None)
    full = f"{row['schema']}.{row['table_name']}"
    if served:
        sql = served.table
    elif table.table_is_bare and row["schema"] == table.schema and is_plain(row["bare"]):
        sql = row["table_name"]
    else:
        sql = full
    columns = {each.name: each for each in columns_of(connection, row["oid"])}
    (name,) = row["columns"]
    if name not in columns:
        return f"{row['bare']} has no column {name}"
    column = columns[name]
    folder = f"{sql}.{column.sql}"
    # File systems take names of up to 255 bytes.
    if not folder.isprintable() or "/" in folder or len(folder.encode()) > 255:
        return "no folder can have its name, so that merge refuses it"
    if folder in {each.folder for each in table.references}:
        return "it is a reference already"
    target = next(each for each in table.columns if each.name == row["refers_to"][0])
    uniques = list(_uniques(connection, row, column, table, served))
    return Reference(
        oid=row["oid"],
        kind=row["kind"],
        table=sql,
        column=column.sql,
        folder=folder,
        cascades=row["cascades"],
        key=[columns[each] for each in key],
        row_type=full,
        stored_columns=[each.sql for each in columns.values() if not each.generated]
        if any(each.generated for each in columns.values())
        else [],
        target=target,
        to_id=target is table.id,
        named=named,
        uniques=uniques,
        absorbed=folder in table.absorb and bool(uniques) and not served,
    )


def _uniques(
    connection: Session, row: Row, column: Column, table: Table, served: Table | None
) -> Any:
    """Yield the unique indexes that rows may break when they are pointed at another row."""
    key = served and {part.column.sql for part in served.key if not part.expression}
    for index in ask(connection, "adopt/unique_indexes", row["oid"], column.name):
        others = [sql for place, sql in enumerate(index["keys"], 1) if place not in index["places"]]
        if not index["places"]:
            table.notes.append(
                f"{index['name']} has {column.sql} in an expression: merge leaves a key alone if"
                " that index refuses a row that would be pointed at another one"
            )
        # An index on another resource's key is left out: that resource merges its rows itself.
        elif key is None or key != {column.sql, *others}:
            yield Unique(
                index["name"], column.sql, others, index["predicate"], index["nulls_equal"]
            )
