"""Values of each type that a request takes.

sample() returns a value for planning a statement, and draw() returns values that a table may store
as other values.
"""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from secrets import token_hex
from typing import Any
from uuid import uuid4

from db.header import BITS, KEY_LENGTH, Field
from db.resources import Resource

# For each kind of db.header, a value as text that PostgreSQL takes for it.
SAMPLES = {
    "integer": "0",
    "text": "",
    "boolean": "false",
    "numeric": "0",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "date": "2000-01-01",
    "time": "00:00",
    "timestamp": "2000-01-01 00:00",
    "timestamptz": "2000-01-01 00:00Z",
}

# What doctor calls a key that has NULL in each field where NULL is allowed.
NONE = "no value"

# A fraction with all six digits that PostgreSQL keeps, so that a column with fewer rounds it.
FRACTION = timedelta(microseconds=123_456)


def sample(field: Field) -> str:
    """Return a value, as text, that PostgreSQL takes for a parameter."""
    return field.labels[0] if field.labels else SAMPLES[field.kind or "text"]


def draw(field: Field) -> dict[str, Any]:
    """Return random values, the plainest first, each under the words that doctor has for it.

    They are random so that the table seldom has them already.
    """
    match field.kind:
        case "text":
            return _texts(min((*field.limits, KEY_LENGTH)))
        case "numeric":
            return _numbers(field)
        case "integer":
            return {"a plain number": random.randrange(2 ** BITS[field.type])}
        case "boolean":
            return {"a plain value": random.choice([True, False])}
        case "uuid":
            return {"a UUID": uuid4()}
        case "enum":
            return {"a label": random.choice(field.labels)}
    moment = datetime(1970, 1, 1) + timedelta(seconds=random.randrange(2**31))
    match field.kind:
        case "date":
            return {"a date": moment.date()}
        case "time":
            return {"a time": moment.time(), "fractions of a second": (moment + FRACTION).time()}
        case "timestamptz":
            moment = moment.replace(tzinfo=UTC)
    return {"a time": moment, "fractions of a second": moment + FRACTION}


def _texts(most: int) -> dict[str, str]:
    """Return names of at most `most` characters, of kinds that tables often change."""
    mark = f"doctor {token_hex(4)}" if most > 30 else token_hex(4)[: max(most - 4, 1)]
    names = {
        "a plain name": mark,
        "blanks around it": f" {mark}\t ",
        "capitals": f"{mark} Ada",
        # The same letter in one character and in two: normalizing changes one of them.
        "accents": f"{mark} é e\N{COMBINING ACUTE ACCENT}",
        f"{most} characters": f"{mark} {'x' * most}",
    }
    return {kind: name[:most] for kind, name in names.items()}


def _numbers(field: Field) -> dict[str, Decimal]:
    digits, behind = (*field.limits, 0)[:2] if field.limits else (9, 3)
    whole = Decimal(random.randrange(10 ** min(max(digits - behind, 0), 9)))
    # A column with fewer digits cannot keep the last one, and so stores another number.
    return {"a plain number": whole} | (
        {"digits behind the point": whole + Decimal(9).scaleb(-behind)} if behind else {}
    )


def kinds_of_keys(resource: Resource) -> list[str]:
    """Return which kinds of values doctor tries in a resource's key, the plainest first."""
    drawn = [list(draw(field)) for field in resource.key]
    named = next((each for each in drawn if "a plain name" in each), drawn[0])
    others = [kind for each in drawn for kind in each[1:] if kind not in named]
    optional = [NONE] if any(field.optional for field in resource.key) else []
    return [*named, *dict.fromkeys(others), *optional]
