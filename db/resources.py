"""A resource is a folder of SQL files, whose comment lines say what they take and return.

The first line of a request's file tells the columns that come back:

    -- The employee with this id: id bigint, name text. No row if there is none.

Each parameter has a line of its own, `-- $1 name text`. After a comma it may say `or NULL`, where a
client may leave it out; `one of 'free', 'pro'`, the labels of an enum; and `needs department_id`,
for a filter that is of no use without another. The names are quoted where SQL quotes them. A table
that is not called as its folder is has a line `-- table shop.customers` in get.sql.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psycopg

ROOT = Path(__file__).parent.parent

# The files that answer requests. A folder that has them all is an endpoint.
REQUESTS = ("select", "insert", "get", "list", "delete")

# A resource's name is a segment of a URL, and begins the names of its index, constraint and guard,
# of which PostgreSQL keeps 63 bytes: the longest end is _guard_search_path, of 18.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,44}")

# What has a path of its own, or a folder of the service's own SQL.
RESERVED = {"adopt", "adoption", "distributed", "inspect", "live", "metrics", "ready"}

_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^\W\d]\w*)'
_TYPE = (
    rf"{_IDENTIFIER}(?:\.{_IDENTIFIER}|(?: [a-z]+)*)"
    r"(?:\(\d+(?:, ?\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])?"
)
_LABEL = "'(?:[^']|'')*'"
_COLUMN = re.compile(rf"({_IDENTIFIER}) ({_TYPE})")
_COLUMNS = re.compile(rf": ({_COLUMN.pattern}(?:, {_COLUMN.pattern})*)\.(?: |$)")
_PARAMETER = re.compile(rf"-- \$(\d+) ({_IDENTIFIER}) ({_TYPE})(?:, (.*))?")
_NOTES = re.compile(
    rf"(?:one of (?P<labels>{_LABEL}(?:, {_LABEL})*))?(?:(?:^|, )(?P<optional>or NULL)\b[^,]*)?"
    rf"(?:, needs (?P<needs>{_IDENTIFIER}(?: and {_IDENTIFIER})*))?"
)
_TABLE = re.compile(rf"-- table ({_IDENTIFIER}(?:\.{_IDENTIFIER})?)")


# The types that a request takes and returns, and what they are alike in.
KINDS = {
    **dict.fromkeys(("smallint", "integer", "bigint"), "integer"),
    **dict.fromkeys(("text", "citext", "character varying", "varchar"), "text"),
    **{name: name for name in ("boolean", "numeric", "uuid", "date", "time", "timestamp")},
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    **dict.fromkeys(("timestamptz", "timestamp with time zone"), "timestamptz"),
}


class HeaderError(SystemExit):
    """A resource's files do not say what it is: the start ends here and names file and line."""


@dataclass(frozen=True)
class Field:
    """A column that comes back, or a parameter: what a client calls it, and PostgreSQL's type."""

    name: str
    type: str
    optional: bool = False  # may be NULL
    labels: tuple[str, ...] = ()  # of an enum
    needs: tuple[str, ...] = ()  # the filters without which this one finds no index

    @cached_property
    def kind(self) -> str | None:
        """One of KINDS, "enum", or None for a type that no request takes."""
        bare = re.sub(r"\(.*?\)", "", self.type)
        citext = re.fullmatch(rf"(?:{_IDENTIFIER}\.)?citext", bare)
        return "enum" if self.labels else "text" if citext else KINDS.get(bare)

    @property
    def is_unserved(self) -> bool:
        """Whether its values have no form in JSON here: PostgreSQL's own types but for KINDS."""
        known = {name for type_ in psycopg.adapters.types for name in (type_.name, type_.regtype)}
        return self.kind is None and (self.type.endswith("[]") or self.type in known)

    @cached_property
    def limits(self) -> tuple[int, ...]:
        """The numbers in the type: a length, or digits and those behind the point."""
        return tuple(map(int, re.findall(r"\d+", "".join(re.findall(r"\(.*?\)", self.type)))))


@dataclass(frozen=True)
class File:
    """An SQL file, by what its comment lines say."""

    path: Path
    text: str

    @cached_property
    def columns(self) -> tuple[Field, ...]:
        """What comes back, in order. Raises HeaderError."""
        listed = _COLUMNS.search(self._lines[0])
        if not (self._lines[0].startswith("-- ") and listed):
            raise self.error(
                1, "must begin with `-- ` and end with columns: `id bigint, name text.`"
            )
        found = (Field(_name(name), type_) for name, type_ in _COLUMN.findall(listed[1]))
        return self._unlike(tuple(found), 1)

    @cached_property
    def parameters(self) -> tuple[Field, ...]:
        """What it takes, in order. Raises HeaderError."""
        return self._unlike(tuple(self._parameters()), 1)

    @cached_property
    def table(self) -> str:
        """The table's name as SQL has it."""
        for line in self._lines:
            if named := _TABLE.fullmatch(line):
                return named[1]
        return quoted(self.path.parent.name)

    def error(self, line: int, detail: str) -> HeaderError:
        """Return the error that names the file and a line, from 1."""
        return HeaderError(f"{self.path}:{line}: {detail}")

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.splitlines() or [""]

    def _parameters(self) -> Iterator[Field]:
        number = 0
        for at, line in enumerate(self._lines, 1):
            if not line.startswith("-- $"):
                continue
            number += 1
            said = _PARAMETER.fullmatch(line)
            notes = _NOTES.match(said[4] or "") if said else None
            if said is None or notes is None:
                raise self.error(at, "must be `-- $1 name type`, and what else after a comma")
            if int(said[1]) != number:
                raise self.error(at, f"must be about ${number}")
            labels = re.findall(_LABEL, notes["labels"] or "")
            yield Field(
                _name(said[2]),
                said[3],
                optional=bool(notes["optional"]),
                labels=tuple(label[1:-1].replace("''", "'") for label in labels),
                needs=tuple(
                    _name(each)
                    for each in re.findall(_IDENTIFIER, notes["needs"] or "")
                    if each != "and"
                ),
            )

    def _unlike(self, fields: tuple[Field, ...], line: int) -> tuple[Field, ...]:
        if len({field.name for field in fields}) < len(fields):
            raise self.error(line, "has two of one name")
        return fields


@dataclass(frozen=True)
class Resource:
    """What its files say. Raises HeaderError where one does not fit the others."""

    name: str
    files: dict[str, File]  # by name, as "select" and "employees.department_id/repoint"

    def __post_init__(self) -> None:
        select, insert, get, list_, delete = (self.files[name] for name in REQUESTS)
        for file in (select, insert, get, list_, delete):
            # A column of an enum's type comes back as text, whatever its labels.
            unserved = [each for each in file.parameters if each.kind is None]
            unserved += [each for each in file.columns if each.is_unserved]
            for field in unserved:
                raise file.error(1, f"{field.name} is {field.type}, a type that is not served")
        if not select.parameters:
            raise select.error(1, "has no parameter, and so no key")
        if insert.parameters[: len(self.key)] != self.key:
            raise insert.error(1, "must take what select.sql takes, in its order, before all else")
        if [each.name for each in self.columns].count("id") != 1:
            raise get.error(1, "must return an id")
        for file in (get, delete):
            if [each.name for each in file.parameters] != ["id"] or file.parameters[0].optional:
                raise file.error(1, "must take $1 id and nothing else")
        if delete.parameters != get.parameters:
            raise delete.error(1, "must take an id of the type that get.sql takes")
        if [each.name for each in list_.parameters[:2]] != ["after", "limit"]:
            raise list_.error(1, "must take $1 after and $2 limit, and filters behind them")
        copies = Field("copies", "bigint")
        for file, columns in (
            (select, (*self.columns, copies)),
            (insert, self.columns),
            (list_, self.columns),
        ):
            if file.columns != columns:
                raise file.error(
                    1, "must return what get.sql does" + " and copies bigint" * (file is select)
                )
        for field in self.filters:
            if not field.optional or not {*field.needs} <= {each.name for each in self.filters}:
                raise list_.error(1, f"{field.name} must be `or NULL`, and need other filters only")

    @property
    def table(self) -> str:
        """The table's name as SQL has it, with a schema or not."""
        return self.files["get"].table

    @property
    def key(self) -> tuple[Field, ...]:
        """What identifies a row for its creators: the parameters of select.sql."""
        return self.files["select"].parameters

    @property
    def fields(self) -> tuple[Field, ...]:
        """What a creation is given: the key, and then the attributes that it sets."""
        return self.files["insert"].parameters

    @property
    def id(self) -> Field:
        """The id in a path."""
        return self.files["get"].parameters[0]

    @property
    def columns(self) -> tuple[Field, ...]:
        """What a row is answered as."""
        return self.files["get"].columns

    @property
    def filters(self) -> tuple[Field, ...]:
        """What a list can be asked for."""
        return self.files["list"].parameters[2:]

    @cached_property
    def references(self) -> list[str]:
        """The "table.column" that refer to it and that there are files for."""
        ends = "/repoint"
        return [name.removesuffix(ends) for name in self.files if name.endswith(ends)]


def parents(resources: dict[str, Resource], name: str) -> dict[str, str]:
    """Return which fields of a resource hold the id of a row of which other one."""
    child = resources[name]
    fields = {field.name for field in child.fields}
    found = {}
    for parent in resources.values():
        for reference in parent.references:
            table, column = _split(reference)
            if table == child.table and column in fields:
                found[column] = parent.name
    return found


def _split(reference: str) -> tuple[str, str]:
    """Return a reference's table, as SQL has it, and its column."""
    named = re.fullmatch(rf"(.*)\.({_IDENTIFIER})", reference)
    return (named[1], _name(named[2])) if named else (reference, "")


def _name(identifier: str) -> str:
    """Return what SQL means by a name, which may be quoted."""
    return identifier[1:-1].replace('""', '"') if identifier[0] == '"' else identifier


def quoted(name: str) -> str:
    """Return a name as SQL must have it; needlessly quoted if it is a keyword that may be bare."""
    if re.fullmatch("[a-z_][a-z0-9_]*", name):
        return name
    return '"{}"'.format(name.replace('"', '""'))


def read_resources(folder: Path) -> dict[str, Resource]:
    """Read each folder that has the files of requests, those that others refer to first.

    Raises HeaderError.
    """
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        there = [name for name in REQUESTS if (path / f"{name}.sql").is_file()]
        if not there:
            continue
        if missing := [f"{name}.sql" for name in REQUESTS if name not in there]:
            raise HeaderError(f"{path} has no {', '.join(missing)}")
        if not NAME.fullmatch(path.name) or path.name in RESERVED:
            raise HeaderError(f"{path}: a resource cannot have this name")
        files = {
            file.relative_to(path).with_suffix("").as_posix(): _read(file)
            for file in sorted(path.rglob("*.sql"))
        }
        found[path.name] = Resource(path.name, files)
    return _parents_first(found)


def _parents_first(resources: dict[str, Resource]) -> dict[str, Resource]:
    """Return them in the order of merge, where to merge parents makes more children share a key."""
    ordered: dict[str, Resource] = {}

    def add(name: str, path: tuple[str, ...] = ()) -> None:
        for parent in parents(resources, name).values():
            if parent not in (name, *path):  # a table may refer to itself, or in a circle
                add(parent, (name, *path))
        ordered.setdefault(name, resources[name])

    for name in resources:
        add(name)
    return ordered


def _read(path: Path) -> File:
    try:
        return File(path, path.read_bytes().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise HeaderError(f"{path}: {error}") from error


def check_resources() -> None:
    """Raise HeaderError if there is no resource, or if a file of one is wrong.

    For all but `python -m db adopt`, which makes the first, and mends them.
    """
    if WRONG:
        raise WRONG
    if not RESOURCES:
        raise HeaderError(f"{FOLDER} has no resource: no folder with select.sql and the others")


# The folder that RESOURCES names, or else the sample's.
FOLDER = Path(os.environ.get("RESOURCES") or ROOT / "sql").expanduser()

# What this process serves, by name, in the order of merge; or what is wrong with it.
RESOURCES: dict[str, Resource] = {}
WRONG: HeaderError | None = None
try:
    RESOURCES = read_resources(FOLDER)
except HeaderError as error:
    WRONG = error

# The folders of the sample, whether it is served or not.
SAMPLE = [path.parent for path in (ROOT / "sql").glob("*/select.sql")]
