"""The msgspec types of requests' values, made from the types in the files' headers.

Each type has its rule in words as its description, for errors and /openapi.json.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from db.header import BITS, KEY_LENGTH, Field
from db.resources import Resource
from web.invisible import INVISIBLE

# A character that PostgreSQL's text can hold: no NUL and no surrogate.
CHARACTER = r"[^\x00\ud800-\udfff]"
NOT_BLANK = rf"^[{INVISIBLE}]*[^{INVISIBLE}\x00\ud800-\udfff]{CHARACTER}*$"

# How many digits a numeric without bounds of its own may have on each side of the point. PostgreSQL
# takes more, but a request should not be able to send as many.
DIGITS = 1000

# The length of a list's page, and its default.
LIMIT = Annotated[int, Meta(ge=1, le=1000, description="must be an integer from 1 to 1000")]
DEFAULT_LIMIT = 100

# A value of each kind of db.header, as it is in JSON.
EXAMPLES = {
    "integer": 7,
    "text": "Ada",
    "numeric": "7",
    "boolean": True,
    "uuid": "0190a5de-7c3b-7cc1-8ad4-2f6f3a1e9b57",
    "date": "2026-11-25",
    "time": "18:00:27",
    "timestamp": "2026-11-25T18:00:27",
    "timestamptz": "2026-11-25T18:00:27Z",
}

# The end of a text. In Python $ alone also matches before a newline at the end.
END = r"$(?!\n)"
DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"


class Timestamp(str):
    """A date and time without a zone, as PostgreSQL writes it and merge keeps it in ids.

    It is no datetime, because msgspec would round a seventh digit of the seconds, and so make one
    value of two.
    """

    form = re.compile(f"{DAY}[Tt ]{TIME}{END}")
    schema: ClassVar[dict[str, str]] = {"pattern": f"^{form.pattern}"}

    @classmethod
    def of(cls, text: str) -> "Timestamp":
        """Return the value that a client sent. Raises TypeError, ValueError or OverflowError."""
        if not cls.form.match(text):
            raise ValueError
        return cls(cls.written(datetime.fromisoformat(text.upper())))

    @staticmethod
    def written(value: datetime) -> str:
        """Return a value as PostgreSQL writes it."""
        return str(value).rstrip("0") if value.microsecond else str(value)


class TimestampWithZone(Timestamp):
    """A date and time, converted to UTC, because PostgreSQL takes no offset over 16 hours."""

    form = re.compile(f"{DAY}[Tt ]{TIME}([Zz]|[+-]([01][0-9]|2[0-3])(:[0-5][0-9])?){END}")
    schema: ClassVar[dict[str, str]] = {"format": "date-time"}

    @staticmethod
    def written(value: datetime) -> str:
        """Return a value in UTC. Raises OverflowError if its year there is not from 1 to 9999."""
        return Timestamp.written(value.astimezone(UTC).replace(tzinfo=None)) + "+00"


def read_custom(type_: type[Timestamp], value: str) -> Timestamp:
    """Read a value of one of the types above, as the dec_hook of msgspec. Raises ValueError."""
    try:
        return type_.of(value)
    except OverflowError as error:
        raise ValueError from error  # msgspec turns only this into a ValidationError


def schema_of(type_: type[Timestamp]) -> dict[str, str]:
    """Return the JSON schema of one of the types above, as the schema_hook of msgspec."""
    return {"type": "string", **type_.schema}


# A time is a text, because msgspec would round 23:59:59.9999999 to the next midnight.
CLOCK = Annotated[str, Meta(pattern=f"^{TIME}{END}")]

# The type and the rule of the kinds that need no bounds; {} stands for the example.
PLAIN: dict[str, tuple[Any, str]] = {
    "boolean": (bool, "true or false"),
    "uuid": (UUID, "a UUID"),
    "date": (date, "a date as {}"),
    "time": (CLOCK, "a time of day without a zone, as {}"),
    "timestamp": (Timestamp, "a date and time without a zone, as {}"),
    "timestamptz": (TimestampWithZone, "a date and time with a zone, as {}"),
}


class Types(NamedTuple):
    """The types of a resource's requests.

    `body` and `filter` are structs. Their fields are in the order of the SQL's parameters.
    """

    body: Any
    filter: Any
    id: Any


def types(resource: Resource) -> Types:
    """Return the types of a resource's requests."""
    key = {field.name for field in resource.key}

    def typed(field: Field) -> Any:
        return type_of(field, key=field.name in key)

    body = {
        # UNSET tells from_body() that the field was left out.
        each.name: (typed(each) | None | UnsetType, UNSET) if each.optional else (typed(each),)
        for each in resource.fields
    }
    # A query string has no null. All parameters of a list but its limit may be left out.
    listed = {
        each.name: (typed(each) | UnsetType, UNSET) for each in resource.files["list"].parameters
    }
    return Types(
        _struct(f"{resource.name}.body", body),
        _struct(f"{resource.name}.filter", {**listed, "limit": (LIMIT, DEFAULT_LIMIT)}),
        type_of(resource.id),
    )


def _struct(name: str, fields: Mapping[str, tuple[Any, ...]]) -> type[msgspec.Struct]:
    """Return a struct of these fields, each with its type and perhaps a default, in order."""
    attributes = {f"p{number}": field for number, field in enumerate(fields)}
    return msgspec.defstruct(
        name,
        [(attribute, *fields[field]) for attribute, field in attributes.items()],
        rename=attributes,
        forbid_unknown_fields=True,
        kw_only=True,  # so that an optional field may stand before a required one
    )


def type_of(field: Field, *, key: bool = False) -> Any:
    """Return the type of a field's values. A text of a key must be short and not blank."""
    kind = field.kind
    if kind == "integer":
        most = 2 ** BITS[field.type] - 1
        rule = f"must be an integer from {-most - 1} to {most}"
        meta = Meta(ge=-most - 1, le=most, description=rule, examples=[example_of(field)])
        return Annotated[int, meta]
    if kind == "text":
        return _text(field, key)
    if kind == "numeric":
        return _numeric(field)
    if kind == "enum":
        labels = ", ".join(f"'{label}'" for label in field.labels)
        meta = Meta(description=f"must be one of {labels}", examples=[example_of(field)])
        return Annotated[Literal[field.labels], meta]
    assert kind is not None, field
    type_, rule = PLAIN[kind]
    example = example_of(field)
    meta = Meta(description=f"must be {rule.format(example)}", examples=[example])
    return Annotated[type_, meta]


def _text(field: Field, key: bool) -> Any:
    most = field.limits[0] if field.limits else None
    if key:
        most = min(most or KEY_LENGTH, KEY_LENGTH)
        rule = (
            f"must be a string of 1 to {most} characters, not all blank or invisible, without NUL"
            " and without lone surrogates"
        )
        meta = Meta(pattern=NOT_BLANK, min_length=1, max_length=most, description=rule)
    else:
        length = f" of at most {most} characters" if most else ""
        rule = f"must be a string{length} without NUL and without lone surrogates"
        meta = Meta(pattern=rf"^{CHARACTER}*$", max_length=most, description=rule)
    return Annotated[str, meta, Meta(examples=[example_of(field)])]


def _numeric(field: Field) -> Any:
    digits, after = (*field.limits, 0)[:2] if field.limits else (2 * DIGITS, DIGITS)
    before = max(digits - after, 1)
    fraction = rf"(\.[0-9]{{1,{after}}})?" if after > 0 else ""
    rule = f"must be a decimal number as a string, of at most {before} digits"
    if after > 0:
        rule += f", and {after} behind the point"
    pattern = rf"^-?[0-9]{{1,{before}}}{fraction}{END}"
    return Annotated[str, Meta(pattern=pattern, description=rule, examples=[example_of(field)])]


def example_of(field: Field) -> Any:
    """Return a value of a field as it is in JSON. Types without a kind come back as text."""
    return field.labels[0] if field.labels else EXAMPLES[field.kind or "text"]
