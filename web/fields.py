"""A header's type as the msgspec type that a client's value must fit, with its rule in words."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from db.header import BITS, KEY_LENGTH, Field
from db.resources import Resource
from web.invisible import INVISIBLE

# PostgreSQL's text holds neither NUL nor surrogates.
CHARACTER = r"[^\x00\ud800-\udfff]"
NOT_BLANK = rf"^[{INVISIBLE}]*[^{INVISIBLE}\x00\ud800-\udfff]{CHARACTER}*$"

# Digits on each side of the point that a numeric has without bounds of its own.
DIGITS = 1000

EXAMPLES = {"integer": 7, "text": "Ada", "numeric": "7"}

# The end: Python's $ matches before a newline, too.
END = r"$(?!\n)"
DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"


class Timestamp(str):
    """A date and time without a zone, as PostgreSQL writes it, for merge notes ids as text.

    No datetime, for msgspec rounds what is beyond microseconds, and two values would be one.
    """

    form = re.compile(f"{DAY}[Tt ]{TIME}{END}")
    schema: ClassVar[dict[str, str]] = {"pattern": f"^{form.pattern}"}

    @classmethod
    def of(cls, text: str) -> "Timestamp":
        """Return what a client sent. Raises TypeError, ValueError or OverflowError."""
        if not cls.form.match(text):
            raise ValueError
        return cls(cls.written(datetime.fromisoformat(text.upper())))

    @staticmethod
    def written(value: datetime) -> str:
        """Return it as PostgreSQL writes it."""
        return str(value).rstrip("0") if value.microsecond else str(value)


class TimestampWithZone(Timestamp):
    """A date and time in UTC, because PostgreSQL takes no offset of more than 16 hours."""

    form = re.compile(f"{DAY}[Tt ]{TIME}([Zz]|[+-]([01][0-9]|2[0-3])(:[0-5][0-9])?){END}")
    schema: ClassVar[dict[str, str]] = {"format": "date-time"}

    @staticmethod
    def written(value: datetime) -> str:
        """Raises OverflowError where its year is not from 1 to 9999 in UTC."""
        return Timestamp.written(value.astimezone(UTC).replace(tzinfo=None)) + "+00"


def read_custom(type_: type[Timestamp], value: str) -> Timestamp:
    """Read a value of a type that msgspec does not know."""
    try:
        return type_.of(value)
    except OverflowError as error:
        raise ValueError from error  # which msgspec makes a ValidationError of


def schema_of(type_: type[Timestamp]) -> dict[str, str]:
    """Return the JSON schema of a type that msgspec does not know."""
    return {"type": "string", **type_.schema}


OTHERS: dict[str, tuple[Any, str, Any]] = {
    "boolean": (bool, "true or false", True),
    "uuid": (UUID, "a UUID", "0190a5de-7c3b-7cc1-8ad4-2f6f3a1e9b57"),
    "date": (date, "a date as 2026-11-25", "2026-11-25"),
    "time": (
        # Not a time of Python's, which 23:59:59.9999999 would make the next midnight.
        Annotated[str, Meta(pattern=f"^{TIME}{END}")],
        "a time of day without a zone, as 18:00:27",
        "18:00:27",
    ),
    "timestamp": (
        Timestamp,
        "a date and time without a zone, as 2026-11-25T18:00:27",
        "2026-11-25T18:00:27",
    ),
    "timestamptz": (
        TimestampWithZone,
        "a date and time with a zone, as 2026-11-25T18:00:27Z",
        "2026-11-25T18:00:27Z",
    ),
}


class Types(NamedTuple):
    """What a resource's requests must fit."""

    body: Any  # structs, whose fields in order are the parameters of the SQL
    filter: Any
    id: Any


def types(resource: Resource) -> Types:
    """Return the types of a resource's requests."""
    key = {field.name for field in resource.key}
    return Types(
        _struct(f"{resource.name}.body", resource.fields, key),
        _struct(f"{resource.name}.filter", resource.files["list"].parameters, key, limit=100),
        type_of(resource.id),
    )


def _struct(
    name: str, fields: tuple[Field, ...], key: set[str], limit: int | None = None
) -> type[msgspec.Struct]:
    """Return a struct of these fields; where there is a default limit, one is the page's length."""
    listed: list[Any] = []
    for number, field in enumerate(fields, 1):
        attribute = f"p{number}"
        if limit is not None and field.name == "limit":
            rule = "must be an integer from 1 to 1000"
            listed.append((attribute, Annotated[int, Meta(ge=1, le=1000, description=rule)], limit))
            continue
        type_ = type_of(field, key=field.name in key)
        if field.optional and limit is not None:  # a query has no null
            listed.append((attribute, type_ | UnsetType, UNSET))
        elif field.optional:  # left out, it is UNSET, by which from_body() counts what is there
            listed.append((attribute, type_ | None | UnsetType, UNSET))
        else:
            listed.append((attribute, type_))
    return msgspec.defstruct(
        name,
        listed,
        rename={f"p{number}": field.name for number, field in enumerate(fields, 1)},
        forbid_unknown_fields=True,
        kw_only=True,  # what may be left out, before what must be there
    )


def type_of(field: Field, *, key: bool = False) -> Any:
    """Return the type of a field's values; a text in a key is short, and not blank."""
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
    type_, rule, example = OTHERS[kind]
    return Annotated[type_, Meta(description=f"must be {rule}", examples=[example])]


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
    """Return a value as JSON has it; of an unknown label, some text."""
    if field.labels:
        return field.labels[0]
    return OTHERS[field.kind][2] if field.kind in OTHERS else EXAMPLES.get(field.kind or "text")
