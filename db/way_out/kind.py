"""Refuses tables other than ordinary ones without parents or children.

merge, guard and enforce are right for ordinary tables only; check_ordinary() says why.
"""

from db.pipeline import Row
from db.resources import Resource
from db.way_out.change import Refused, Session, ask

NAMES = {
    "p": "a partitioned table",
    "f": "a foreign table",
    "v": "a view",
    "m": "a materialized view",
}


def why_not_ordinary(table: str, kind: Row) -> str | None:
    """Return what makes a table no ordinary one, or None if it is one.

    `kind` is the table's row of sql/way_out/kind.sql.
    """
    if kind["kind"] in NAMES:
        return f"{table} is {NAMES[kind['kind']]}"
    if kind["parents"]:
        return f"{table} is a partition or a child of {', '.join(kind['parents'])}"
    if kind["children"]:
        return f"{table} has children, whose rows are among its own ({some(kind['children'])})"
    return None


def some(tables: list[str]) -> str:
    """Return the names of the first tables, and how many more there are.

    A table may have thousands of partitions.
    """
    more = f" and {len(tables) - 3:,} more" if len(tables) > 3 else ""
    return ", ".join(tables[:3]) + more


def check_ordinary(table: str, kinds: list[Row]) -> None:
    """Raise Refused unless the table is there and an ordinary one.

    merge moves the columns of the table that it is given. A row of a child would lose the child's
    own columns, and undo would put it into the parent. A unique index and the guard's triggers hold
    in one table only, not in its children. A partitioned table takes no index that is built
    CONCURRENTLY, and a partition that is attached, or whose triggers are disabled, has no guard.
    """
    if not kinds:
        raise Refused(f"there is no table {table}")
    if reason := why_not_ordinary(table, kinds[0]):
        raise Refused(
            f"{reason}: merge, guard and enforce are right for ordinary tables alone, so nothing"
            " was changed here"
        )


def check_referring(table: str, kinds: list[Row]) -> None:
    """Raise Refused if a table that refers to a resource has children, other than partitions.

    Children do not inherit the foreign key. Partitions do, and an UPDATE of their table reaches
    them.
    """
    for kind in kinds:
        if kind["kind"] != "p" and kind["children"]:
            raise Refused(
                f"{table} has children without its foreign key ({some(kind['children'])}): a row"
                " written there meanwhile would refer to a row that is gone"
            )


def refuse_relatives(connection: Session, resource: Resource) -> None:
    """Raise Refused unless the resource's table is an ordinary one."""
    check_ordinary(resource.table, ask(connection, "way_out/kind", resource.table))
