"""Makes what the service needs in a database: the table merged, and the index of each lookup.

Where the sample is served, its tables are made, too.
"""

from collections.abc import Iterable
from functools import partial

from psycopg import errors

from db.doctor.definition import indexes, made_by
from db.engine import ENGINES, POSTGRESQL, Engine, discover
from db.ours import refuse_others_merged, refuse_others_tables
from db.pipeline import Row
from db.queries import QUERIES, one_line
from db.resources import FOLDER, RESOURCES, ROOT
from db.texts import say
from db.way_out.change import (
    Refused,
    Session,
    ask,
    change,
    composed,
    connect,
    drop_index,
    for_each,
    sql_of,
    wait_for_turn,
)
from db.way_out.kind import why_not_ordinary


def is_sample() -> bool:
    """Tell whether this process serves the sample."""
    return FOLDER.resolve() == (ROOT / "sql").resolve()


def apply_schema(url: str, engine_name: str | None = None) -> None:
    """Make what is missing, but no lookup of a table that is not there yet.

    `engine_name` is a name of ENGINES; the server is asked if it is None. Raises Refused if a table
    stays locked, or psycopg.Error if the database cannot be reached or the role lacks the rights.
    """
    engine = ENGINES[engine_name or discover(url)]
    with connect(url, "init") as connection:
        _make_tables(connection, engine)
        if engine is POSTGRESQL:
            there = [
                name
                for name, resource in RESOURCES.items()
                if ask(connection, "way_out/kind", resource.table)
            ]
            for_each(connection, there, partial(_make_lookup, connection))


def init(url: str, names: Iterable[str], engine_name: str | None = None) -> None:
    """Make what is missing for these resources.

    `engine_name` is that of apply_schema(). Raises psycopg.Error, or Refused, which names what is
    in the way.
    """
    engine = ENGINES[engine_name or discover(url)]
    with connect(url, "init") as connection:
        if engine is POSTGRESQL and is_sample():
            # Nobody has named these tables, as adopt's user names a table. apply_schema() does not
            # check: its server is ours, and its tables may belong to the role onerow_owner.
            refuse_others_tables(connection, [each.table for each in RESOURCES.values()])
        _make_tables(connection, engine)
        if engine is POSTGRESQL:
            for_each(connection, names, partial(_make_lookup, connection))


def _make_tables(connection: Session, engine: Engine) -> None:
    """Make the table merged, and the sample's tables where the sample is served."""
    if not is_sample():
        if engine.folder:
            raise Refused(f"on {engine.name} only the sample is served")
    elif engine.folder:
        connection.execute(engine.schema.read_bytes())
        return
    refuse_others_merged(connection)
    if is_sample():
        _make(connection, [each.table for each in RESOURCES.values()], engine.schema.read_bytes())
    _make(connection, ["merged"], sql_of("way_out/merged"))
    (lacks,) = ask(connection, "way_out/merged_lacks")
    for part in ("as_text", "filled", "key", "old_index", "index"):
        if lacks[part]:
            change(connection, ["merged"], [sql_of(f"way_out/merged_{part}")])


def _make(connection: Session, tables: list[str], statements: bytes) -> None:
    # Two starts at once take turns, because CREATE TABLE IF NOT EXISTS fails where another session
    # is making that table. change() waits for the locks, because CREATE INDEX IF NOT EXISTS locks
    # the table even where the index is there.
    change(connection, tables, [sql_of("way_out/schema_turn"), statements])


def _make_lookup(connection: Session, name: str) -> None:
    """Build the lookup's index while writers go on, unless it is there as lookup.sql has it.

    Where the index of that name has another definition, it is renamed, so that it serves until the
    new one is built, and then dropped.
    """
    resource = RESOURCES[name]
    before = f"{name}_lookup_before"
    wanted = made_by(connection, resource, "lookup")["definition"]

    def there() -> bool:
        index, others = indexes(connection, resource, "lookup")
        replaced = any(each["name"] == before for each in others)
        return index is not None and _serves(index, wanted) and not replaced

    if there():
        return
    for kind in ask(connection, "way_out/kind", resource.table):
        if kind["kind"] != "r":
            build = one_line(QUERIES[f"{name}/lookup"]).replace(" CONCURRENTLY", "")
            what = why_not_ordinary(resource.table, kind)
            raise Refused(f"{what}, which takes no index CONCURRENTLY, so do it yourself: {build}")
    wait_for_turn(connection)
    if there():
        return
    index, _ = indexes(connection, resource, "lookup")
    if index and not index["mine"]:
        raise Refused(f"{index['sql_name']} is an index of another table: rename it first")
    if index and not index["valid"]:
        drop_index(connection, resource.table, index["name"])
        index = None
    if index and not _serves(index, wanted):
        say(f"{name}: {index['name']} is not as lookup.sql has it, and is replaced.")
        # A killed run may have left an index of that name, which is not needed beside the one that
        # is renamed now.
        drop_index(connection, resource.table, before)
        parameters = (resource.table, index["name"], before)
        rename = composed(connection, "way_out/rename_index", *parameters)
        change(connection, [resource.table], [rename] if rename else [])
        index = None
    if index is None:
        try:
            ask(connection, f"{name}/lookup")
        except errors.DuplicateTable as error:
            said = error.diag.message_primary
            raise Refused(f"{said}, and is not this index: rename it first") from None
    drop_index(connection, resource.table, before)


def _serves(index: Row, wanted: str) -> bool:
    return bool(index["mine"] and index["valid"] and index["definition"] == wanted)
