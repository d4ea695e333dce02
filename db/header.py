"""The comment lines of a resource's SQL files, which say what each file takes and returns.

The first line of a request's file tells the columns that come back:

    -- The customer with this id: id bigint, email text. No row if there is none.

Each parameter has a line of its own, `-- $1 name text`. After a comma the line may say `or NULL`,
where a client may leave the parameter out; `one of 'free', 'pro'`, the labels of an enum; and
`needs warehouse`, for a filter that no index serves without another one. Names are quoted where SQL
quotes them. Where the table has another name than its folder, get.sql has a line
`-- table shop.customers`. Where there is no foreign key, a reference's repoint.sql has a line
`-- refers to email without a foreign key`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psycopg

from db.texts import printable

# A name as it stands in SQL. One with capitals must be in quotes, because SQL folds all others to
# lower case.
IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^\W\dA-Z][^\WA-Z]*)'
_TYPE = (
    rf"{IDENTIFIER}(?:\.{IDENTIFIER}|(?: [a-z]+)*)"
    r"(?:\(\d+(?:, ?-?\d+)?\)(?: with(?:out)? time zone)?)?(?:\[\])?"
)
_LABEL = "'(?:[^']|'')*'"
_COLUMN = re.compile(rf"({IDENTIFIER}) ({_TYPE})")
_COLUMNS = re.compile(rf": ({_COLUMN.pattern}(?:, {_COLUMN.pattern})*)\.(?: |$)")
_PARAMETER = re.compile(rf"-- \$(\d+) ({IDENTIFIER}) ({_TYPE})(?:, (.*))?")
_NOTES = re.compile(
    rf"(?:one of (?P<labels>{_LABEL}(?:, {_LABEL})*))?(?:(?:^|, )(?P<optional>or NULL)\b[^,]*)?"
    rf"(?:, needs (?P<needs>{IDENTIFIER}(?: and {IDENTIFIER})*))?"
)
_REFERS = re.compile(rf"-- refers to ({IDENTIFIER}) without a foreign key")
_TABLE = re.compile(rf"-- table ({IDENTIFIER}(?:\.{IDENTIFIER})?)")

# Characters that no field of a request may have in its name: msgspec, which decodes the requests,
# refuses them.
UNSENT = re.compile(r'["\\\x00-\x1f]')

# A parameter, or a literal, a quoted name or a comment, in which $1 is no parameter. Only a
# parameter has a group.
_PLACEHOLDER = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|/\*.*?\*/|\$(\d+)""", re.DOTALL)

# The types that a request takes and returns, each with its kind. Types of one kind have the same
# form in JSON.
KINDS = {
    **dict.fromkeys(("smallint", "integer", "bigint"), "integer"),
    **dict.fromkeys(("text", "citext", "character varying", "varchar"), "text"),
    **{name: name for name in ("boolean", "numeric", "uuid", "date", "time", "timestamp")},
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    **dict.fromkeys(("timestamptz", "timestamp with time zone"), "timestamptz"),
}

# The most characters of a text in a key. 255 characters are at most 1,020 bytes, and an entry of a
# btree holds 2,700, so that a unique constraint can be added later.
KEY_LENGTH = 255

# How many bits each integer type has, without the sign.
BITS = {"smallint": 15, "integer": 31, "bigint": 63}

# The names of PostgreSQL's own types, as far as psycopg knows them.
_KNOWN = {name for each in psycopg.adapters.types for name in (each.name, each.regtype)}


class HeaderError(SystemExit):
    """A resource's file is not as it must be: the start ends here and names file and line."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(printable(f"{where}: {detail}"))


@dataclass(frozen=True)
class Field:
    """A column that comes back, or a parameter, with the name that clients use for it."""

    name: str
    type: str  # as PostgreSQL calls it
    optional: bool = False  # whether a client may leave it out or send null
    labels: tuple[str, ...] = ()  # those of an enum
    needs: tuple[str, ...] = ()  # the other filters that a request must have with this one
    line: int = field(default=1, compare=False)  # the line of the file that declares it, from 1

    @cached_property
    def kind(self) -> str | None:
        """A value of KINDS, or "enum", or None for a type that no request takes."""
        bare = re.sub(r"\(.*?\)", "", self.type)
        citext = re.fullmatch(rf"(?:{IDENTIFIER}\.)?citext", bare)
        return "enum" if self.labels else "text" if citext else KINDS.get(bare)

    @property
    def is_unserved(self) -> bool:
        """Whether the type is one of PostgreSQL's own for which the service has no form in JSON.

        A type of another schema, such as an enum or a domain, comes back as text.
        """
        return self.kind is None and (self.type.endswith("[]") or self.type in _KNOWN)

    @cached_property
    def limits(self) -> tuple[int, ...]:
        """The numbers in the type: a length, or all digits and those behind the point."""
        return tuple(map(int, re.findall(r"-?\d+", "".join(re.findall(r"\(.*?\)", self.type)))))


@dataclass(frozen=True)
class File:
    """An SQL file, and what its comment lines say of it."""

    path: Path
    text: str

    @cached_property
    def columns(self) -> tuple[Field, ...]:
        """The columns that come back, in order. Raises HeaderError."""
        listed = _COLUMNS.search(self._lines[0])
        if not (self._lines[0].startswith("-- ") and listed):
            raise self.error(
                1, "must be `-- What it returns: id bigint, name text.`, the columns behind a colon"
            )
        return self._unlike(
            tuple(Field(_name(name), type_) for name, type_ in _COLUMN.findall(listed[1]))
        )

    @cached_property
    def parameters(self) -> tuple[Field, ...]:
        """The parameters, in order. Raises HeaderError."""
        return self._unlike(tuple(self._parameters()))

    @property
    def placeholders(self) -> set[int]:
        """The numbers of the parameters in the statement itself, whatever the comments say."""
        return {int(number) for number in _PLACEHOLDER.findall(self.text) if number}

    @cached_property
    def table(self) -> str:
        """The table's name as it stands in SQL: that of its own line, or else the folder's."""
        for line in self._lines:
            if named := _TABLE.fullmatch(line):
                return named[1]
        return quoted(self.path.parent.name)

    @cached_property
    def refers_to(self) -> str | None:
        """The column that the line `-- refers to` names, or None if the file has no such line."""
        found = (_REFERS.fullmatch(line) for line in self._lines)
        return next((match[1] for match in found if match), None)

    def error(self, line: int, detail: str) -> HeaderError:
        """Return the error that names the file and a line, from 1."""
        return HeaderError(f"{self.path}:{line}", detail)

    @cached_property
    def _lines(self) -> list[str]:
        # A name in quotes may hold characters at which str.splitlines() would split.
        return re.split(r"\r?\n", self.text)

    def _parameters(self) -> Iterator[Field]:
        number = 0
        for at, line in enumerate(self._lines, 1):
            if not re.match(r"\s*--+\s*\$", line):
                continue
            number += 1
            said = _PARAMETER.fullmatch(line)
            notes = _NOTES.fullmatch(said[4] or "") if said else None
            if said is None or notes is None:
                raise self.error(
                    at,
                    "must be `-- $1 name type`, and after it at most `, one of 'a', 'b'`,"
                    " `, or NULL for any` and `, needs another`",
                )
            if int(said[1]) != number:
                raise self.error(at, f"must be about ${number}, the next one")
            if UNSENT.search(name := _name(said[2])):
                raise self.error(at, f"no field of a request can be called {name}")
            labels = re.findall(_LABEL, notes["labels"] or "")
            yield Field(
                name,
                said[3],
                optional=bool(notes["optional"]),
                labels=tuple(label[1:-1].replace("''", "'") for label in labels),
                needs=tuple(
                    _name(each)
                    for each in re.findall(IDENTIFIER, notes["needs"] or "")
                    if each != "and"
                ),
                line=at,
            )

    def _unlike(self, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        names = set()
        for each in fields:
            if each.name in names:
                raise self.error(each.line, f"has a second {each.name}")
            names.add(each.name)
        return fields


def names_of(identifiers: str) -> tuple[str, ...]:
    """Return the parts of a name such as shop."Customers", without their quotes."""
    return tuple(map(_name, re.findall(IDENTIFIER, identifiers)))


def table_of(reference: str) -> str:
    """Return the table of a "table.column" as it stands in SQL, or "" if it has none."""
    return ".".join(map(quoted, names_of(reference)[:-1]))


def _name(identifier: str) -> str:
    """Return a name without the quotes that it may have in SQL."""
    return identifier[1:-1].replace('""', '"') if identifier[0] == '"' else identifier


def quoted(name: str) -> str:
    """Return a name as SQL takes it, in quotes where its characters need them."""
    if re.fullmatch("[a-z_][a-z0-9_]*", name):
        return name
    return '"{}"'.format(name.replace('"', '""'))
