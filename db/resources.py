"""A resource is a folder of SQL files whose comment lines, read by db.header, fit together."""

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from db.header import Field, File, HeaderError, names_of

ROOT = Path(__file__).parent.parent

# The files that answer requests. A folder that has all of them is an endpoint.
REQUESTS = ("select", "insert", "get", "list", "delete")

# The files that answer a request with many keys. A folder without them takes one key at a time.
MANY = ("select_many", "insert_many", "lock")

# A resource's name is a segment of a URL, and begins the names of its indexes, its constraint and
# its guard. PostgreSQL cuts a name after 63 bytes, and the longest ending, _lookup_before, takes 14
# of them.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,44}")
_NAMES = "letters, digits, _ and -, 45 at most, a letter first, and no name of the service's own"
_FILES = ", ".join(f"{name}.sql" for name in REQUESTS)

# The folders of the sample, which are there even when RESOURCES names another folder.
SAMPLE = [path.parent for path in sorted((ROOT / "sql").glob("*/select.sql"))]

# Names that no resource can have: the service has a path of its own there, or a folder in sql/.
RESERVED = {"inspect", "live", "metrics", "ready"} | {
    path.name for path in (ROOT / "sql").iterdir() if path.is_dir() and path not in SAMPLE
}


@dataclass(frozen=True)
class Resource:
    """A folder's files, by which its requests are served.

    Raises HeaderError where a file does not fit the others.
    """

    name: str
    files: dict[str, File]  # by name: "select", "orders.customer_id/repoint"

    def __post_init__(self) -> None:
        for name in REQUESTS:
            self._check_alone(name)
        select, insert, get, list_, delete = (self.files[name] for name in REQUESTS)
        if not select.parameters:
            raise select.error(1, "has no parameter, and so no key")
        if insert.parameters[: len(self.key)] != self.key:
            raise insert.error(1, "must take what select.sql takes, in its order, before all else")
        for file in (get, delete):
            if [each.name for each in file.parameters] != ["id"] or file.parameters[0].optional:
                raise file.error(1, "must take $1 id and nothing else")
        id_ = Field("id", self.id.type)  # no labels, for a column's header has none
        if id_ not in self.columns:
            raise get.error(1, f"must return id {id_.type}, for that is what $1 is")
        if delete.parameters != get.parameters:
            raise delete.error(1, f"must take $1 id {id_.type}, as get.sql does")
        if list_.parameters[:2] != (
            replace(self.id, name="after", optional=True),
            Field("limit", "bigint"),
        ):
            raise list_.error(
                1, f"must take $1 after {id_.type}, or NULL, then $2 limit bigint, then filters"
            )
        for file, columns, words in (
            (select, (*self.columns, Field("copies", "bigint")), " and copies bigint behind it"),
            (insert, self.columns, ""),
            (list_, self.columns, ""),
        ):
            if file.columns != columns:
                raise file.error(1, f"must return what get.sql returns{words}")
        if delete.columns != (id_,):
            raise delete.error(1, f"must return id {id_.type} and nothing else")
        for each in self.filters:
            if not each.optional:
                raise list_.error(each.line, f"{each.name} must be `or NULL`, as any filter")
            others = {other.name for other in self.filters if other is not each}
            if unknown := [name for name in each.needs if name not in others]:
                raise list_.error(each.line, f"needs {unknown[0]}, which is no other filter")
        if self.takes_many:
            self._check_many()
        if "merged" in self.files:
            self._check_merged()

    def _check_many(self) -> None:
        select, insert, _ = (self.files[name] for name in MANY)
        for file, taken, fields in (
            (select, select.parameters, self.key),
            (insert, insert.parameters[:-1], self.fields),
        ):
            arrays = [field.name for field in taken if field.type.endswith("[]")]
            if arrays != [field.name for field in fields]:
                one = file.path.name.replace("_many", "")
                raise file.error(1, f"must take an array for each parameter of {one}, in its order")
            if file.columns != (*self.columns, Field("copies", "bigint")):
                raise file.error(1, "must return what get.sql returns and copies bigint behind it")
        if len(insert.parameters) == len(self.fields) or insert.parameters[-1].type != "boolean":
            raise insert.error(1, "must take a boolean at the end: whether lock.sql has run")

    def _check_merged(self) -> None:
        merged = self.files["merged"]
        if [each.name for each in merged.parameters] != ["id", "after", "limit"]:
            raise merged.error(1, "must take $1 id, $2 after bigint, or NULL, and $3 limit bigint")
        types = [field.type for field in merged.columns[len(self.columns) :]]
        wanted = ["bigint", self.id.type, "timestamp with time zone"]
        if merged.columns[: len(self.columns)] != self.columns or types != wanted:
            raise merged.error(
                1, "must return what get.sql returns, and behind it its step, kept and merged_at"
            )

    def _check_alone(self, name: str) -> None:
        file = self.files[name]
        # Only a parameter's line has an enum's labels. A column of somebody's own type, such as an
        # enum, comes back as text.
        unserved = [each for each in file.parameters if each.kind is None]
        for each in unserved + [each for each in file.columns if each.is_unserved]:
            raise file.error(
                each.line, f"{each.name} is {each.type}, a type that no request takes or returns"
            )
        for each in file.parameters:
            if each.needs and name != "list":
                raise file.error(each.line, "only a filter of list.sql can need another")
        for number in file.placeholders ^ {*range(1, len(file.parameters) + 1)}:
            raise file.error(1, f"${number} must be in the statement and have a line that tells it")

    @property
    def takes_many(self) -> bool:
        """Whether a request may have many keys."""
        return all(name in self.files for name in MANY)

    @property
    def table(self) -> str:
        """The table's name as it stands in SQL, with a schema or without."""
        return self.files["get"].table

    @property
    def key(self) -> tuple[Field, ...]:
        """The fields of the key, by which clients identify a row: the parameters of select.sql."""
        return self.files["select"].parameters

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a creation: the key, and then the attributes that a new row gets."""
        return self.files["insert"].parameters

    @property
    def id(self) -> Field:
        """The parameter of get.sql, which is the id in a row's path."""
        return self.files["get"].parameters[0]

    @property
    def columns(self) -> tuple[Field, ...]:
        """The columns of a row in an answer."""
        return self.files["get"].columns

    @property
    def filters(self) -> tuple[Field, ...]:
        """The parameters of list.sql behind `after` and `limit`."""
        return self.files["list"].parameters[2:]

    @cached_property
    def references(self) -> list[str]:
        """What refers to this table and has a folder of files, each as "table.column"."""
        ends = "/repoint"
        return [name.removesuffix(ends) for name in self.files if name.endswith(ends)]

    @cached_property
    def foreign_keys(self) -> list[str]:
        """The references that are foreign keys to the id."""
        return [each for each in self.references if not self.files[f"{each}/repoint"].refers_to]

    @cached_property
    def referred_to(self) -> list[str]:
        """The columns to which others refer without a foreign key, each as "table.column"."""
        columns = {self.files[f"{each}/repoint"].refers_to for each in self.references}
        return [f"{self.table}.{column}" for column in sorted(filter(None, columns))]


def parents(resources: dict[str, Resource], name: str) -> dict[str, str]:
    """Return the fields of a resource that refer to another one, and the name of that one."""
    child = resources[name]
    table = names_of(child.table)
    named = {(*table, each.name): each.name for each in child.fields}
    return {
        named[names_of(reference)]: parent.name
        for parent in resources.values()
        for reference in parent.foreign_keys
        if names_of(reference) in named
    }


def read_resources(folder: Path) -> dict[str, Resource]:
    """Read each folder that has the files of requests; parents come before their children.

    Raises HeaderError.
    """
    found = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise HeaderError(f"RESOURCES={folder}", str(error.strerror)) from None
    for path in paths:
        there = [name for name in REQUESTS if (path / f"{name}.sql").is_file()]
        if not there:
            continue
        if missing := [f"{name}.sql" for name in REQUESTS if name not in there]:
            raise HeaderError(str(path), f"has no {', '.join(missing)}")
        if not NAME.fullmatch(path.name) or path.name in RESERVED:
            raise HeaderError(str(path), f"no resource can have this name: {_NAMES}")
        found[path.name] = read_resource(path)
    if not found:
        raise HeaderError(f"RESOURCES={folder}", f"has no folder with {_FILES}")
    return _parents_first(found)


def read_resource(folder: Path) -> Resource:
    """Read one folder, which must have the files of REQUESTS. Raises HeaderError."""
    files = {
        file.relative_to(folder).with_suffix("").as_posix(): _read(file)
        for file in sorted(folder.rglob("*.sql"))
    }
    return Resource(folder.name, files)


def _parents_first(resources: dict[str, Resource]) -> dict[str, Resource]:
    """Return the resources in the order in which merge takes them.

    Merging two parents can make their children share a key, so the children come after them.
    """
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
        content = path.read_bytes()
    except OSError as error:
        raise HeaderError(str(path), f"{error.strerror}") from None
    return file_of(path, content)


def file_of(path: Path, content: bytes) -> File:
    """Return the File of a path with this content, whether it is written yet or not.

    Raises HeaderError if the content is not UTF-8.
    """
    try:
        return File(path, content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise HeaderError(f"{path}:{line}", "is not UTF-8") from None


def check_resources() -> None:
    """Raise HeaderError if there is no resource, or if a file of one is wrong.

    `python -m db adopt` does not call this: it writes the first resource, and mends wrong ones.
    """
    if WRONG is not None:
        raise WRONG


# The folder of the resources' folders: the one that RESOURCES names, or else the sample's.
# read_settings() is not used, because it would end `python app.py --check` here if another variable
# were wrong.
FOLDER = Path(os.environ.get("RESOURCES") or ROOT / "sql")

# What this process serves, by name, in the order in which merge takes it. If a file is wrong, this
# is empty, and check_resources() raises the error: adopt must import this module to mend the file.
RESOURCES: dict[str, Resource] = {}
WRONG: HeaderError | None = None
try:
    RESOURCES = read_resources(FOLDER)
except HeaderError as error:
    WRONG = error
