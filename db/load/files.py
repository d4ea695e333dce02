"""The rows of a file, CSV or lines of JSON."""

import csv
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import msgspec

from db.header import Field
from db.resources import Resource
from db.way_out.change import Refused

INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
BOOLEANS = {"t": True, "true": True, "f": False, "false": False}


class Row(NamedTuple):
    """A row of the file."""

    line: int  # its last line, from 1
    read: int  # bytes of the file up to there
    body: bytes  # as JSON
    fault: str = ""  # why it is not sent


def json_rows(source: BinaryIO, _resource: Resource) -> Iterator[Row]:
    """Yield the lines of a file, without those that are blank."""
    read = 0
    for number, line in enumerate(source, 1):
        read += len(line)
        if line.strip():
            yield Row(number, read, line.rstrip(b"\n"))


def csv_rows(source: BinaryIO, resource: Resource) -> Iterator[Row]:
    """Yield the rows of a CSV file whose first line names the fields. Raises Refused.

    An empty cell is null where the field may be, as for COPY.
    """
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for number, line in enumerate(source, 1):
            read += len(line)
            try:
                yield line.decode("utf-8" if number > 1 else "utf-8-sig")
            except UnicodeDecodeError:
                raise Refused(f"line {number} is not UTF-8, and ends the loading") from None

    reader = csv.reader(lines(), strict=True)
    fields = {field.name: field for field in resource.fields}
    try:
        names = next(reader, [])
        free = [name for name, field in fields.items() if field.optional]
        if not {*fields} - {*free} <= {*names} <= {*fields} or len({*names}) < len(names):
            but = f"; {', '.join(free)} may be left out" if free else ""
            raise Refused(f"the first line must name, each once, {', '.join(fields)}{but}")
        # COPY writes NULL as nothing, and so as an empty line where there is no other column.
        alone = len(names) == 1 and fields[names[0]].optional
        for cells in reader:
            if alone and not cells:
                cells = [""]
            if len(cells) == len(names):
                given = {
                    name: value(fields[name], cell) for name, cell in zip(names, cells, strict=True)
                }
                yield Row(reader.line_num, read, msgspec.json.encode(given))
            elif cells:
                fault = f"has {len(cells)} cells, and the first line {len(names)}"
                yield Row(reader.line_num, read, msgspec.json.encode(cells), fault)
    except csv.Error as error:
        raise Refused(f"line {reader.line_num} is not CSV, and ends the loading: {error}") from None


def value(field: Field, cell: str) -> object:
    """Return what a request has for a cell. A cell that does not fit stays a text, for the 422."""
    if not cell and field.optional:
        return None
    if field.kind == "boolean":
        return BOOLEANS.get(cell.lower(), cell)
    return int(cell) if field.kind == "integer" and INTEGER.fullmatch(cell) else cell


READERS: dict[str, Callable[[BinaryIO, Resource], Iterator[Row]]] = {
    ".csv": csv_rows,
    ".ndjson": json_rows,
}
