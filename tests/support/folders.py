"""Writes folders of resources, as a person would, for tables of the tests' own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def literal(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


@dataclass(frozen=True)
class Part:
    """A field of a key, an attribute or an id."""

    name: str
    type: str
    expression: str = "{}"  # what the key has in the place of the column or the parameter
    notes: str = ""  # what the header says behind the type, such as ", or NULL"
    default: str = ""  # the SQL of the value that is stored for NULL

    def header(self, number: int, notes: str = "") -> str:
        return f"-- ${number} {quoted(self.name)} {self.type}{self.notes}{notes}\n"

    def column(self) -> str:
        return self.expression.format(quoted(self.name))

    def parameter(self, number: int) -> str:
        return self.expression.format(f"${number}::{self.type}")

    def value(self, number: int) -> str:
        return f"coalesce(${number}, {self.default})" if self.default else f"${number}::{self.type}"


ID = Part("id", "bigint")


def write(
    root: Path,
    name: str,
    key: Sequence[Part],
    *,
    attributes: Sequence[Part] = (),
    id_: Part = ID,
    table: str = "",
    where: str = "TRUE",
    referred: Sequence[str] = (),
) -> None:
    """Write the folder of a resource. The column `id_` is answered under the name id."""
    folder = root / name
    folder.mkdir(parents=True)
    table = table or quoted(name)
    fields = [*key, *attributes]
    others = [each for each in fields if each.name != id_.name]
    shown = [quoted(each.name) for each in others]
    returned = ", ".join([f"{quoted(id_.name)} AS id", *shown])
    again = ", ".join(["id", *shown])
    columns = ", ".join(
        [f"id {id_.type}", *(f"{quoted(each.name)} {each.type}" for each in others)]
    )
    parameters = list(enumerate(key, 1))
    kept = ", ".join(each.column() for each in key)
    sent = ", ".join(each.parameter(n) for n, each in parameters)
    same = " = ".join(f"hash_record_extended(ROW({each}), 0::bigint)" for each in (kept, sent))
    for n, each in parameters:
        same += f"\n      AND {each.column()} IS NOT DISTINCT FROM {each.parameter(n)}"
    same += f"\n      AND {where}"
    headers = "".join(each.header(n) for n, each in parameters)
    (folder / "select.sql").write_text(
        f"-- The row of this key: {columns}, copies bigint.\n{headers}"
        f"WITH same_key AS MATERIALIZED (\n    SELECT {returned}\n    FROM {table}\n"
        f"    WHERE {same}\n)\n"
        f"SELECT {again}, count(*) OVER () AS copies\nFROM same_key\nORDER BY id\nLIMIT 1;\n"
    )
    given = list(enumerate(fields, 1))
    values = ", ".join(f"{each.value(n)} AS {quoted(each.name)}" for n, each in given)
    names = ", ".join(quoted(each.name) for each in fields)
    cases = "".join(
        f"    WHEN {each.expression.format('inserted.' + quoted(each.name))} IS DISTINCT FROM"
        f" {each.parameter(n)} THEN {literal(f'the table stored another {each.name}')}\n"
        for n, each in parameters
    )
    (folder / "insert.sql").write_text(
        f"-- The new row: {columns}.\n{''.join(each.header(n) for n, each in given)}"
        f"WITH missing AS MATERIALIZED (\n    SELECT {values}\n    WHERE NOT EXISTS (\n"
        f"        SELECT FROM {table} WHERE {same}\n    )\n"
        "      AND clock_timestamp() < transaction_timestamp() + interval '50 milliseconds'\n),\n"
        f"inserted AS (\n    INSERT INTO {table} ({names})\n    SELECT {names}\n    FROM missing\n"
        f"    RETURNING tableoid, {returned}\n)\n"
        f"SELECT {', '.join('inserted.' + each for each in ['id', *shown])}\n"
        f"FROM missing\nLEFT JOIN inserted ON TRUE\nWHERE CASE\n"
        f"    WHEN inserted.tableoid IS NULL THEN 'the table kept no row'\n{cases}"
        "    WHEN clock_timestamp() > transaction_timestamp() + interval '50 milliseconds'"
        " THEN 'the insert came too late'\n    ELSE 'true'\nEND::boolean;\n"
    )
    in_path = Part("id", id_.type, notes=id_.notes).header(1)
    (folder / "get.sql").write_text(
        f"-- The row with this id: {columns}.\n{in_path}"
        f"-- table {table}\n"
        f"SELECT {returned}\nFROM {table}\nWHERE {quoted(id_.name)} = $1::{id_.type};\n"
    )
    filters = list(enumerate(fields, 3))
    asked = "".join(
        each.header(n, "" if "or NULL" in each.notes else ", or NULL for any")
        for n, each in filters
    )
    conditions = "".join(
        f"\n  AND (${n}::{each.type} IS NULL OR {each.column()} = {each.parameter(n)})"
        for n, each in filters
    )
    after = Part("after", id_.type, notes=id_.notes).header(1, ", or NULL for the start")
    (folder / "list.sql").write_text(
        f"-- The rows after an id: {columns}.\n{after}-- $2 limit bigint\n{asked}"
        f"SELECT {returned}\nFROM {table}\n"
        f"WHERE ($1::{id_.type} IS NULL OR {quoted(id_.name)} > $1::{id_.type}){conditions}\n"
        f"ORDER BY {quoted(id_.name)}\nLIMIT $2::bigint + 1;\n"
    )
    (folder / "delete.sql").write_text(
        f"-- The row just deleted: id {id_.type}.\n{in_path}"
        f"DELETE FROM {table}\nWHERE {quoted(id_.name)} = $1::{id_.type}\n"
        f"RETURNING {quoted(id_.name)} AS id;\n"
    )
    (folder / "lookup.sql").write_text(
        "-- Builds the index of the lookup. No row.\n"
        f"CREATE INDEX CONCURRENTLY {quoted(name + '_lookup')}\n"
        f"    ON {table} USING hash (hash_record_extended(ROW({kept}), 0::bigint))\n"
        f"    WITH (fillfactor = 10) WHERE {where};\n"
    )
    for reference in referred:
        (folder / reference).mkdir()
        (folder / reference / "repoint.sql").write_text("SELECT;\n")
