"""Converts input to msgspec types, and names all that is wrong with it in the types' words."""

import json
import re
from contextlib import suppress
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar, get_args
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET
from msgspec.structs import astuple
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from web.fields import read_custom
from web.problem import problem
from web.request import BLANK

# A string of JSON. If it is the name of a member, the group is the colon behind it.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"([ \t\r\n]*+:)?')

# The most items of an array, which all go into one transaction. 1,000 are looked for in some 10 ms.
MOST_ITEMS = 1000

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class Invalid(Exception):
    """Input is well-formed, but some of it is not acceptable. `errors` are those of a 422."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__(errors)
        self.errors = errors


async def invalid_input(_request: Request, error: Exception) -> Response:
    """Answer Invalid with 422 and a pointer to each thing that is wrong."""
    assert isinstance(error, Invalid)
    return unprocessable(*error.errors)


def unprocessable(*errors: dict[str, str]) -> Response:
    """Return the 422 that lists what is wrong."""
    return problem(422, "The request does not fit: see errors.", errors=errors)


def wrong(field: str, detail: str, item: int | None = None) -> dict[str, str]:
    """Return an entry of a 422's errors about one field, or about the whole input for "".

    `item` is the place in an array, from 0, of what has the field.
    """
    # RFC 6901 escapes the pointer's own signs first, and then those that no URI's fragment has.
    token = quote(field.replace("~", "~0").replace("/", "~1"), safe="!$&'()*+,;=:@?")
    place = "" if item is None else f"/{item}"
    return {"pointer": f"#{place}/{token}" if field else f"#{place}", "detail": detail}


def has_lines(request: Request) -> bool:
    """Tell whether a body is JSON in lines. Raises HTTPException 415 if it is compressed."""
    if not request.scope["request"].headers.streamed:
        return False
    _check_coding(request)
    return True


def json_body(request: Request) -> bytes:
    """Return the body. Raises HTTPException 415 if its headers call it anything but plain JSON."""
    if not request.scope["request"].headers.is_json:
        accept = {"Accept": "application/json"}
        raise HTTPException(415, "The body must be application/json.", accept)
    _check_coding(request)
    body: bytes = request.scope["request"].body
    return body


def _check_coding(request: Request) -> None:
    if request.scope["request"].headers.compressed:
        accept = {"Accept-Encoding": "identity"}
        raise HTTPException(415, "The body must not be compressed.", accept)


def from_body(body: bytes, struct: type[S]) -> S:
    """Decode a JSON object.

    Raises Invalid, or HTTPException 400 if the body is not JSON in UTF-8.
    """
    try:
        decoded = msgspec.json.decode(body, type=struct, dec_hook=read_custom)
        if _has_each_field_once(body, decoded):
            return decoded
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # What is wrong is raised after this clause. An error raised inside it would have msgspec's
        # error, which quotes the input, as its context.
        pass
    value = _parse(body)
    if errors := _errors(value, struct):
        raise Invalid(errors)
    return msgspec.convert(value, struct, dec_hook=read_custom)


def is_array(body: bytes) -> bool:
    """Tell whether a body that is JSON is an array."""
    return body.lstrip(BLANK).startswith(b"[")


def from_array(body: bytes, struct: type[S], most: int) -> list[S]:
    """Decode a JSON array of objects, each of at most `most` bytes, as a body of one item has.

    The errors are those of from_body().
    """
    if len(body) > most:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            items = msgspec.json.decode(body, type=list[msgspec.Raw])
            too_long = [place for place, item in enumerate(items) if len(item) > most]
            if too_long:
                raise Invalid([wrong("", f"is over {most} bytes", place) for place in too_long])
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = msgspec.json.decode(body, type=list[struct], dec_hook=read_custom)  # type: ignore[valid-type]
        if len(decoded) <= MOST_ITEMS and _has_each_field_once(body, *decoded):
            return decoded
    values = _parse(body)
    if len(values) > MOST_ITEMS:
        raise Invalid([wrong("", f"must have at most {MOST_ITEMS} items")])
    if errors := [
        each for item, value in enumerate(values) for each in _errors(value, struct, item)
    ]:
        raise Invalid(errors)
    return msgspec.convert(values, list[struct], dec_hook=read_custom)  # type: ignore[valid-type]


def _has_each_field_once(body: bytes, *decoded: msgspec.Struct) -> bool:
    # msgspec takes the last value of a field that is there twice. If the body has as many colons as
    # fields, no field is there twice. Where strings have colons, too, the body has more, and then
    # only those behind names are counted.
    there = sum(len(values) - values.count(UNSET) for values in map(astuple, decoded))
    return body.count(b":") == there or sum(map(bool, STRING.findall(body))) == there


def from_query(request: Request, struct: type[S]) -> S:
    """Convert the parameters of a query string.

    Raises Invalid, or HTTPException 400 if they are not UTF-8.
    """
    texts = query_texts(request)
    values: dict[str, Any] = dict(texts)
    for name, type_ in _types(struct).items():
        if name in texts:
            values[name] = _from_text(texts[name], type_)
    try:
        return msgspec.convert(values, struct, dec_hook=read_custom)
    except msgspec.ValidationError:
        raise Invalid(_errors(values, struct)) from None


@cache  # msgspec reads all annotations anew each time, which takes longer than a whole GET
def _types(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the type of each field."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


def query_texts(request: Request) -> dict[str, str]:
    """Return the parameters of a query string as texts.

    Raises Invalid if one is there twice, or HTTPException 400 if they are not UTF-8.
    """
    try:
        unquote(request.scope["query_string"].decode(), errors="strict")
    except UnicodeDecodeError:
        raise HTTPException(400, "The query string is not UTF-8.") from None
    items = request.query_params.multi_items()
    texts = dict(items)
    if len(texts) < len(items):
        raise Invalid([wrong("", "has a parameter twice")])
    return texts


def from_path(request: Request, field: str, type_: type[T]) -> T:
    """Convert one parameter of the path. Raises Invalid."""
    text = request.path_params[field]
    try:
        if "\ufffd" in text:  # it was sent, or it stands for bytes that are not UTF-8
            unquote(request.scope["raw_path"].decode(), errors="strict")
        return msgspec.convert(_from_text(text, type_), type_, dec_hook=read_custom)
    except (msgspec.ValidationError, UnicodeDecodeError):
        raise Invalid([wrong(field, _rule(type_))]) from None


def as_text(struct: msgspec.Struct) -> list[str | None]:
    """Return the values of a body or a query as texts that PostgreSQL reads, or None for NULL."""
    return [None if value is None or value is UNSET else str(value) for value in astuple(struct)]


def as_sent(value: object) -> str:
    """Return a value as it stands in a path or a query: as in JSON, without quotes."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')


def _from_text(text: str, type_: Any) -> str | int:
    """Return an int or a bool for a text that is one, unless the type takes the text itself."""
    with suppress(msgspec.ValidationError):
        msgspec.convert(text, type_, dec_hook=read_custom)
        return text
    if text in ("true", "false"):
        return text == "true"
    # msgspec's strict=False would take 1.0 and 1e3 for integers. 20 digits are out of any range.
    return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else text


def _parse(body: bytes) -> Any:
    # The standard library takes some JSON that msgspec does not: a lone surrogate, which the error
    # then names, and 7.0 for an integer. Integers are cut to 20 digits, which are still out of any
    # range, because int() refuses more than 4,300.
    twice: list[dict[str, Any]] = []  # objects that have a field twice

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            twice.append(value)
        return value

    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=to_dict,
            parse_constant=_no_constant,
            parse_float=_number,
            parse_int=lambda digits: int(digits[:20]),
        )
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is not JSON in UTF-8.") from None
    if twice:  # this waits for the end of the body, because what follows might be no JSON
        ids = {id(each) for each in twice}
        items = value[:MOST_ITEMS] if isinstance(value, list) else []
        places = [place for place, item in enumerate(items) if id(item) in ids]
        raise Invalid([wrong("", "has a field twice", each) for each in places or (None,)])
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> int | float:
    """Return an int, with all its digits, for 7.0 and 7e0, which are integers in JSON Schema."""
    number = float(text)
    # Larger numbers, and those nearer to 0, fit no type, and Decimal may refuse their exponents.
    if 1 <= abs(number) < 2**64 and (exact := Decimal(text)) == int(exact):
        return int(exact)
    return number


def _errors(
    value: Any, struct: type[msgspec.Struct], item: int | None = None
) -> list[dict[str, str]]:
    if not isinstance(value, dict):
        return [wrong("", "must be an object", item)]
    errors = []
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for name, field in fields.items():
        if name in value:
            # For a lone surrogate msgspec raises Python's UnicodeEncodeError.
            try:
                msgspec.convert(value[name], field.type, dec_hook=read_custom)
            except (msgspec.ValidationError, UnicodeEncodeError):
                errors.append(wrong(name, _rule(field.type), item))
        elif field.required:
            errors.append(wrong(name, "is required", item))
    if not value.keys() <= fields.keys():
        errors.append(wrong("", f"takes only {', '.join(fields)}", item))
    return errors


def _rule(type_: Any) -> str:
    """Return the description in the Meta of a type, or of the part of a union that has one."""
    for part in (type_, *get_args(type_)):
        for meta in getattr(part, "__metadata__", ()):
            if meta.description:
                return str(meta.description)
    raise TypeError(f"{type_} does not describe itself")


def prefers_strict(request: Request) -> bool:
    """Tell whether a Prefer header (RFC 7240) asks for handling=strict."""
    preferences = ",".join(request.headers.getlist("prefer"))
    return (
        re.search(r'(?:^|,)\s*handling\s*=\s*("?)strict\1\s*(?:[,;]|$)', preferences, re.I)
        is not None
    )
