"""What refers to a resource, held against the files that it has for that."""

from typing import Any

from db.header import names_of, table_of
from db.ours import refuse_others_merged
from db.pipeline import Row
from db.resources import RESOURCES, Resource
from db.way_out.change import Refused, Session, ask
from db.way_out.kind import check_referring, refuse_relatives


def children(resource: Resource) -> dict[str, Resource]:
    """Return the resources whose rows may come to share a key when this one is merged.

    They are by the reference, "table.column", that their key holds.
    """
    by_table = {names_of(each.table): each for each in RESOURCES.values()}
    return {
        reference: by_table[names_of(reference)[:-1]]
        for reference in resource.references
        if f"{reference}/collisions" in resource.files
    }


def family(name: str) -> list[Resource]:
    """Return a resource, its children, their children, and so on."""
    found = [RESOURCES[name]]
    for each in found:  # the list grows while it is gone through
        found += [child for child in children(each).values() if child not in found]
    return found


def is_merged_in_turn(resource: Resource) -> bool:
    """Tell whether more rows of a resource may come to share a key than its plan.sql counts.

    That counts its parents by the keys that they have now. Those change where the parents have
    parents themselves, which are merged first, and where the table is its own parent.
    """
    parents = _parents(resource)
    return resource in parents or any(map(_parents, parents))


def _parents(resource: Resource) -> list[Resource]:
    return [each for each in RESOURCES.values() if resource in children(each).values()]


def locks(connection: Session, resources: list[Resource]) -> Row:
    """Return the statements that lock the tables of some resources, and those that refer to them.

    They are the row of sql/way_out/lock.sql.
    """
    referring = {table_of(reference) for each in resources for reference in each.references}
    names = sorted({each.table for each in resources} | referring)
    return ask(connection, "way_out/lock", names)[0]


def is_absorbed(resource: Resource, reference: str) -> bool:
    """Tell whether rows of a reference go into merged where they are in the way of others."""
    return f"{reference}/remove" in resource.files


def held_against(resource: Resource) -> list[Any]:
    """Return the parameters of sql/way_out/foreign_keys.sql for a resource."""
    return [resource.table, resource.references, *_split(resource.references)]


def _split(references: list[str]) -> tuple[list[str | None], list[str]]:
    """Return the tables and the columns of some references."""
    # A folder whose name has no table in it gets NULL, for which no foreign key is found.
    tables = [table_of(each) or None for each in references]
    return tables, [names_of(each)[-1] for each in references]


def check_references(resource: Resource, foreign_keys: list[Row]) -> None:
    """Raise Refused unless each foreign key to a resource has files, and each file a foreign key.

    `foreign_keys` are the rows of sql/way_out/foreign_keys.sql.
    """
    if unknown := [key["referring"] for key in foreign_keys if key["reference"] is None]:
        raise Refused(
            "a foreign key that merge has no SQL for would delete rows or refuse:"
            f" {', '.join(unknown)}: run the same `python -m db adopt` again"
        )
    named = {*resource.references} - {*resource.foreign_keys}
    if gone := [
        key["reference"]
        for key in foreign_keys
        if key["referring"] is None and key["reference"] not in named
    ]:
        raise Refused(
            f"without a foreign key {', '.join(gone)} a row written meanwhile"
            f" would refer to a row of {resource.name} that is gone: run the same"
            " `python -m db adopt` again"
        )


def nothing_of(reference: str) -> list[Any]:
    """Return the parameters of sql/way_out/foreign_keys.sql for a table that only refers."""
    return [table_of(reference), [], [], []]


def check_absorbed(reference: str, foreign_keys: list[Row]) -> None:
    """Raise Refused if something refers to rows of a reference that merge moves away.

    `foreign_keys` are the rows of sql/way_out/foreign_keys.sql.
    """
    if foreign_keys:
        raise Refused(
            f"rows of {table_of(reference)} that are in the way cannot be moved, for"
            f" {foreign_keys[0]['referring']} refers to them: adopt {table_of(reference)} itself"
        )


def unindexed(connection: Session, name: str) -> list[str]:
    """Return a line for each column that refers to a resource and that no index begins with.

    The columns to which others refer without a foreign key need one, too.
    """
    both = [[*resource.references, *resource.referred_to] for resource in family(name)]
    return [
        f"{row['reference']} has no index, so that each batch reads the whole table."
        f" This makes one: {row['statement']}"
        for columns in both
        for row in ask(connection, "way_out/unindexed", columns, *_split(columns))
    ]


def check(connection: Session, name: str) -> None:
    """Raise Refused unless rows of a resource can be merged without a loss."""
    check_tables(connection, family(name))
    for resource in family(name):
        foreign_keys = ask(connection, "way_out/foreign_keys", *held_against(resource))
        check_references(resource, foreign_keys)
        for reference in resource.references:
            _check_keys(connection, resource, reference)
            if is_absorbed(resource, reference):
                _check_refers_once(connection, name, reference)
                others = ask(connection, "way_out/foreign_keys", *nothing_of(reference))
                check_absorbed(reference, others)


def _check_refers_once(connection: Session, name: str, reference: str) -> None:
    """Raise Refused if the rows of a reference refer to a resource's family by others, too.

    What was moved into the table merged would come back without what those were pointed at.
    """
    oid = _oid(connection, reference)
    every = [each for one in family(name) for each in one.references]
    found = [each for each in every if _oid(connection, each) == oid]
    if len(found) > 1:
        raise Refused(
            f"rows of {table_of(reference)} that are in the way cannot be moved, for"
            f" {' and '.join(sorted(found))} refer to rows that are merged together: adopt"
            " without --absorb"
        )


def _oid(connection: Session, reference: str) -> int | None:
    """Return the oid of the table of a reference, which is written with its schema or without."""
    kinds = ask(connection, "way_out/kind", table_of(reference))
    return kinds[0]["oid"] if kinds else None


def _check_keys(connection: Session, resource: Resource, reference: str) -> None:
    """Raise Refused if rows that refer to this resource would share a key that nothing merges."""
    table = table_of(reference)
    column = names_of(reference)[-1]
    resources = list(RESOURCES)
    all_tables = [each.table for each in RESOURCES.values()]
    served = ask(connection, "way_out/served", table, column, resources, all_tables)
    names = " and ".join(each["resource"] for each in served)
    if all(each["has_column"] is False for each in served):
        return
    if len(served) > 1:
        raise Refused(
            f"{names} are resources of one table, {table}, and {reference} is in a key: merge"
            " would see to the keys of one of them alone"
        )
    if reference in children(resource):
        return
    if served[0]["has_column"] is None:
        raise Refused(f"there is no index {names}_lookup: run `python -m db init` first")
    raise Refused(
        f"{reference} is inside an expression or the condition of the key of {names}, whose rows"
        f" would come to share a key: {resource.name}/{reference}/collisions.sql must list those,"
        " and adopt writes it only where the column itself is in the key"
    )


def check_tables(connection: Session, resources: list[Resource]) -> None:
    """Raise Refused unless rows can be moved out of these tables, and back, whole."""
    refuse_others_merged(connection)
    for resource in resources:
        refuse_relatives(connection, resource)
        for reference in resource.references:
            table = table_of(reference)
            check_referring(table, ask(connection, "way_out/kind", table))


def check_columns(connection: Session, names: list[str], but: list[str]) -> None:
    """Raise Refused if what may differ is no column of any of these resources."""
    tables_ = [each.table for name in names for each in family(name)]
    if unknown := ask(connection, "way_out/unknown_columns", tables_, but):
        raise Refused(f"--except {unknown[0]['name']}: there is no such column")
