"""Renders the files of a resource from the templates."""

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from db.adopt.column import Column, literal
from db.adopt.table import Table
from db.adopt.variables import variables
from db.header import quoted
from db.resources import ROOT
from db.texts import printable

TEMPLATES = ROOT / "db" / "adopt" / "templates"

# The templates of files that not every table has, and the variable that tells whether it has one.
OPTIONAL = {
    "constraint.sql": "constraint",
    "agree.sql": "agree",
    "fill.sql": "takes",
    "unfill.sql": "takes",
    "beside.sql": "has_beside",
    "before.sql": "before",
}


def _hash(parts: list[str]) -> str:
    return f"hash_record_extended(ROW({', '.join(parts)}), 0::bigint)"


def _same(stored: list[str], given: list[str], column: int) -> str:
    """Return the condition that a row has a key. The lookup's index serves its hash.

    Its first line begins in `column` of the file, and the other lines are indented to match.
    """
    parts = [f"AND {a} IS NOT DISTINCT FROM {b}" for a, b in zip(stored, given, strict=True)]
    indented = [" " * column + f"= {_hash(given)}", *(" " * (column - 4) + each for each in parts)]
    return "\n".join([_hash(stored), *indented])


def _unnest(columns: list[Column]) -> str:
    """Return the SQL that makes rows of one array parameter for each column."""
    arrays = [f"${number}::{column.bare}[]" for number, column in enumerate(columns, 1)]
    # unnest() of several arrays is always PostgreSQL's own, and cannot have a schema. With one
    # array, somebody's own unnest(text[]) would fit better than PostgreSQL's without a schema.
    return f"{'pg_catalog.' if len(arrays) == 1 else ''}unnest({', '.join(arrays)})"


# All tables of a run share it, because parsing the templates takes longer than all other steps.
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
    autoescape=False,
)
ENVIRONMENT.filters["literal"] = literal
# A comment ends with its line, so PostgreSQL would run what a name has behind a line break.
ENVIRONMENT.filters["printable"] = printable
ENVIRONMENT.globals.update(literal=literal, quoted=quoted, hash=_hash, same=_same, unnest=_unnest)


def render(table: Table, tables: list[Table], *, distributed: bool = False) -> dict[str, str]:
    """Return the files of a table's folder: their texts by path.

    `tables` has all tables that have resources. `distributed`: the engine has a folder in sql/.
    """
    given = variables(table, tables)
    names = [path.relative_to(TEMPLATES).as_posix() for path in sorted(TEMPLATES.glob("*.sql"))]
    if distributed:
        # The other templates make what only PostgreSQL has, such as the guard.
        instead = {path.name for path in (TEMPLATES / "distributed").glob("*.sql")}
        names = [f"distributed/{name}" for name in instead] + ["get.sql", "delete.sql"]
    files = {
        name.removeprefix("distributed/"): ENVIRONMENT.get_template(name).render(given)
        for name in names
        if OPTIONAL.get(name) is None or given[OPTIONAL[name]]
    }
    for reference in [] if distributed else table.references:
        # `child` has the referring column in its key, so that merging gives its rows other keys.
        held = (each for each in tables if each.oid == reference.oid and each.holds(reference))
        child = next(held, None) if reference.to_id else None
        for path in sorted((TEMPLATES / "reference").glob("*.sql")):
            if path.name == "collisions.sql" and child is None:
                continue
            if path.name == "conflicts.sql" and not reference.uniques:
                continue
            if path.name == "keep.sql" and not reference.absorbed:
                continue
            template = ENVIRONMENT.get_template(f"reference/{path.name}")
            # A row that refers to another row of its table may go together with that one.
            own = (
                literal(each.name)
                for each in table.columns
                if reference.oid == table.oid and each.sql == reference.column
            )
            files[f"{reference.folder}/{path.name}"] = template.render(
                given,
                reference=reference,
                child=child,
                own_column=next(own, None),
            )
        if reference.absorbed:
            # Its rows are moved as those of a resource are, under the name of the folder.
            row = {
                "name": f"{table.name}/{reference.folder}",
                "table": reference.table,
                "kind": reference.kind,
                "row_type": reference.row_type,
                "stored_columns": reference.stored_columns,
                "takes": [],
                "before": "",
                "removal": {
                    **dict.fromkeys(("type", "bare"), "text"),
                    "condition": reference.row_is("these_pairs.id"),
                    "id": f"{reference.row(f'{reference.table}.')}::text AS id",
                },
            }
            for name in ("remove.sql", "restore.sql"):
                template = ENVIRONMENT.get_template(name)
                files[f"{reference.folder}/{name}"] = template.render(row)
    return files
