"""Input to msgspec types. All that is wrong with it is said at once, in the types' own words."""

import json
import re
from contextlib import suppress
from decimal import Decimal
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

# A string of JSON, and what follows it if it is the name of a member.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"([ \t\r\n]*+:)?')

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class Invalid(Exception):
    """Input is well-formed but not acceptable."""

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


def wrong(field: str, detail: str) -> dict[str, str]:
    """Return one entry of a 422's errors, about one field or, for "", the whole input."""
    # RFC 6901: first the pointer's own signs, then those that a URI's fragment cannot have.
    token = quote(field.replace("~", "~0").replace("/", "~1"), safe="!$&'()*+,;=:@?")
    return {"pointer": f"#/{token}" if field else "#", "detail": detail}


async def json_body(request: Request) -> bytes:
    """Return the body. Raises HTTPException 415 if it is not said to be JSON as it is."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        accept = {"Accept": "application/json"}
        raise HTTPException(415, "The body must be application/json.", accept)
    # A coding that is called identity is none, but for RFC 9110, which wants it left out.
    codings = {each.strip().lower() for each in request.headers.getlist("content-encoding")}
    if codings - {"", "identity"}:
        accept = {"Accept-Encoding": "identity"}
        raise HTTPException(415, "The body must not be compressed.", accept)
    return await request.body()


def from_body(body: bytes, struct: type[S]) -> S:
    """Decode a JSON object.

    Raises Invalid, or HTTPException 400 if the body is not JSON in UTF-8.
    """
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = msgspec.json.decode(body, type=struct, dec_hook=read_custom)
        # msgspec takes the last of a field that is there twice. None is where each field has one
        # colon; strings may have some, too, and are then passed over.
        there = len(astuple(decoded)) - astuple(decoded).count(UNSET)
        if body.count(b":") == there or sum(map(bool, STRING.findall(body))) == there:
            return decoded
    # Out of the handler, for the cause quotes the input.
    value = _parse(body)
    if errors := _errors(value, struct):
        raise Invalid(errors)
    return msgspec.convert(value, struct, dec_hook=read_custom)


def from_query(request: Request, struct: type[S]) -> S:
    """Convert a query string's parameters. Raises Invalid, or HTTPException 400 if not UTF-8."""
    texts = query_texts(request)
    values: dict[str, Any] = dict(texts)
    for field in msgspec.structs.fields(struct):
        if field.encode_name in texts:
            values[field.encode_name] = _from_text(texts[field.encode_name], field.type)
    try:
        return msgspec.convert(values, struct, dec_hook=read_custom)
    except msgspec.ValidationError:
        raise Invalid(_errors(values, struct)) from None


def query_texts(request: Request) -> dict[str, str]:
    """Return a query string's parameters. Raises Invalid, or HTTPException 400 if not UTF-8."""
    try:
        unquote(request.url.query, errors="strict")
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
        if "\ufffd" in text:  # which also stands for what is not UTF-8
            unquote(request.scope["raw_path"].decode(), errors="strict")
        return msgspec.convert(_from_text(text, type_), type_, dec_hook=read_custom)
    except (msgspec.ValidationError, UnicodeDecodeError):
        raise Invalid([wrong(field, _rule(type_))]) from None


def as_text(struct: msgspec.Struct) -> list[str | None]:
    """Return the values of a body or a query as PostgreSQL takes them."""
    return [None if value is None or value is UNSET else str(value) for value in astuple(struct)]


def as_sent(value: object) -> str:
    """Return a value as a path or a query has it: as JSON does, and without quotes."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')


def _from_text(text: str, type_: Any) -> str | int:
    """Return a whole number as int, or true and false as bool, where the type takes no text."""
    with suppress(msgspec.ValidationError):
        msgspec.convert(text, type_, dec_hook=read_custom)
        return text
    if text in ("true", "false"):
        return text == "true"
    # msgspec's own strict=False takes 1.0 and 1e3 for integers, too. 20 digits are past any range.
    return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else text


def _parse(body: bytes) -> Any:
    # The standard library's parser, because it takes what is JSON and msgspec does not: a lone
    # surrogate, which is then named, and 7.0 for an integer. An integer is cut to 20 digits, still
    # out of any range.
    twice = False

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        value = dict(pairs)
        twice = twice or len(value) < len(pairs)
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
    if twice:  # said only now, for what follows that object may not be JSON
        raise Invalid([wrong("", "has a field twice")])
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> int | float:
    """Return an int for 7.0 and 7e0, which JSON Schema calls integers; with all its digits."""
    number = float(text)
    # What is nearer to 0, or larger, fits no type; and its exponent may be more than Decimal takes.
    if 1 <= abs(number) < 2**64 and (exact := Decimal(text)) == int(exact):
        return int(exact)
    return number


def _errors(value: Any, struct: type[msgspec.Struct]) -> list[dict[str, str]]:
    if not isinstance(value, dict):
        return [wrong("", "must be an object")]
    errors = []
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for name, field in fields.items():
        if name in value:
            # msgspec meets a lone surrogate with an error of Python's.
            try:
                msgspec.convert(value[name], field.type, dec_hook=read_custom)
            except (msgspec.ValidationError, UnicodeEncodeError):
                errors.append(wrong(name, _rule(field.type)))
        elif field.required:
            errors.append(wrong(name, "is required"))
    if not value.keys() <= fields.keys():
        errors.append(wrong("", f"takes only {', '.join(fields)}"))
    return errors


def _rule(type_: Any) -> str:
    """Return the description in the type's Meta, also where the type is one of a union."""
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
