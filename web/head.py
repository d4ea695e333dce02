"""Parses the head of a request, which is its request line and its headers (RFC 9110 and 9112).

What could be read in two ways is refused, because a proxy in front may have read it in the other
way. No part of a request is guessed at, repaired or skipped.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from starlette.exceptions import HTTPException

# The most bytes of a request line with its headers, and the most headers. HAProxy's defaults are
# about the same. Trailers, and the framing of chunks, have the same limits.
MAX_HEAD = 16384
MAX_HEADERS = 100

# PATCH, and the methods of RFC 9110 except for CONNECT, which is for proxies.
METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"}

# The headers that this parser reads. They say where the request ends, which host it is for, what
# its sender waits for, and how long the body may be.
OURS = {
    *(b"host", b"content-length", b"content-type", b"transfer-encoding", b"connection", b"expect"),
    *(b"authorization", b"content-encoding"),
}

# The media types of a body that may be an array, and of one that is read and answered line by line.
JSON = b"application/json"
LINES = b"application/x-ndjson"

# A possessive quantifier (with a + behind it) never backtracks, so that no input takes long.
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
TEXT = rb"[\t\x20-\x7e\x80-\xff]*+"
FIELD = TOKEN + rb":" + TEXT + rb"\r\n"
# Browsers send some characters that no URI may have, such as { and |, as they are. "#" begins the
# fragment, which no client sends.
LINE = rb"(" + TOKEN + rb") ([!\"$-~]++) HTTP/1\.([01])\r\n"
HEADERS = re.compile(rb"(?:" + FIELD + rb")*+")
FIRST_LINE = re.compile(LINE)
HEADER = re.compile(FIELD)
# A DNS name or an address, with a port. A URI's host may have other characters, but no name in use
# has them. An http URI with an empty name is an error.
HOST = re.compile(rb"([A-Za-z0-9._~%-]++|\[[0-9A-Fa-f:.]++\])(?::([0-9]{0,5}))?")
URI = re.compile(rb"(?i:https?)://([^/?]*+)(.*+)")
# A hundred digits are more than any body's length has, and int() refuses more than 4,300.
LENGTH = re.compile(rb"[0-9]{1,100}")

NOT_HTTP = "This is not HTTP/1.1."
BAD_FRAMING = "Where the body ends is not clear."


class Headers(NamedTuple):
    """The headers of a request, and what they say about it. Their names are in lower case."""

    all: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    length: int | None  # the body's length in bytes, or None if it comes in chunks
    expects_continue: bool  # whether the client asks for 100 Continue
    streamed: bool  # whether the body is lines of JSON, and follows the request in parts
    is_json: bool  # whether the body is one JSON text, and so may be an array
    compressed: bool  # whether the body has a content coding


@dataclass(slots=True)
class Request:
    """A request with its whole body, unless that is streamed, and without its trailers."""

    method: str
    path: bytes
    query: bytes
    version: str
    headers: Headers
    body: bytes = b""


def too_many_headers() -> HTTPException:
    """Return the 431 for a head, trailers or framing that are too large."""
    return HTTPException(431, f"Over {MAX_HEAD} bytes or {MAX_HEADERS} headers.")


def parse_head(head: bytes) -> Request:
    """Return the request of a head, still without its body.

    Raises HTTPException 400, 417, 431 or 501.
    """
    match = FIRST_LINE.match(head)
    if match is None:
        raise HTTPException(400, NOT_HTTP)
    method, target, minor = match.groups()
    headers = parse_headers(head[match.end() :], minor, is_post=method == b"POST")
    if method not in METHODS:
        raise HTTPException(501, "This method is not known here.")
    if not target.startswith(b"/"):
        host, target = other_target(method, target)
        if host:
            others = [each for each in headers.all if each[0] != b"host"]
            headers = headers._replace(all=(*others, (b"host", host)))
    path, _, query = target.partition(b"?")
    return Request(method.decode(), path, query, "1." + minor.decode(), headers)


# Most clients of a service send few different headers, and parsing takes three times as long as
# finding what was parsed. Those that send an id of their own with each request gain nothing. 128
# of the largest headers take some 8 MB.
@lru_cache(maxsize=128)
def parse_headers(lines: bytes, minor: bytes, *, is_post: bool) -> Headers:
    """Return the headers of these lines, as they are meant in HTTP/1.0 or 1.1.

    Raises HTTPException 400, 417, 431 or 501.
    """
    if not HEADERS.fullmatch(lines):
        raise HTTPException(400, NOT_HTTP)
    headers: list[tuple[bytes, bytes]] = []
    ours: dict[bytes, list[bytes]] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name in OURS:
            ours.setdefault(name, []).append(value)
    if len(headers) > MAX_HEADERS:
        raise too_many_headers()
    hosts = ours.get(b"host", [])
    # Requests in HTTP/1.0, such as load balancers' health checks, may have no Host.
    if len(hosts) > 1 or (not hosts and minor == b"1") or None in map(parse_host, hosts):
        raise HTTPException(400, "Host is missing, twice or malformed.")
    # Of two values, a proxy may have checked another than the one that would count here.
    types = ours.get(b"content-type", [b""])
    if types.count(types[0]) < len(types) or len(ours.get(b"authorization", [])) > 1:
        raise HTTPException(400, "Two values of Content-Type, or two of Authorization.")
    media = media_type(types[0]) if is_post else b""
    length = body_length(ours, minor)
    expects = minor == b"1" and b"expect" in ours  # HTTP/1.0 does not know 100 Continue
    if expects and any(value.lower() != b"100-continue" for value in ours[b"expect"]):
        raise HTTPException(417, "Only 100-continue can be expected.")
    options = b",".join(ours.get(b"connection", [])).lower().split(b",")
    codings = [value.lower() for value in ours.get(b"content-encoding", [])]
    return Headers(
        tuple(headers),
        keep_alive=minor == b"1" and b"close" not in [each.strip(b" \t") for each in options],
        length=length,
        expects_continue=expects,
        streamed=media == LINES,
        is_json=media == JSON,
        # RFC 9110 wants the coding "identity" left out, but clients send it, and it means none.
        compressed=not {*codings} <= {b"", b"identity"},
    )


def media_type(content_type: bytes) -> bytes:
    """Return the media type of a Content-Type, without its parameters and in lower case."""
    return content_type.partition(b";")[0].strip().lower()


@lru_cache  # the clients of one service send few different values, and parsing one takes long
def parse_host(value: bytes) -> tuple[str, int | None] | None:
    """Return the name and the port of a Host header or of a URI, or None if it is malformed.

    The name is in lower case and without a dot at its end. An IPv6 address is in brackets, and in
    its canonical form.
    """
    match = HOST.fullmatch(value)
    if match is None:
        return None
    name = match[1].decode().lower().removesuffix(".")
    port = int(match[2]) if match[2] else None
    if name.startswith("["):
        try:
            name = f"[{IPv6Address(name[1:-1])}]"
        except ValueError:
            return None
    return None if port is not None and port > 65535 else (name, port)


def other_target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Return the host and the path of a target that is no path (RFC 9112, 3.2).

    If the target is a whole URI, as clients send it to a proxy, the URI's host counts, and not the
    Host header. Raises HTTPException 400.
    """
    if target == b"*" and method == b"OPTIONS":
        return b"", target
    uri = URI.fullmatch(target)
    if uri is None or parse_host(uri[1]) is None:
        raise HTTPException(400, "This is not the target of a request.")
    return uri[1], uri[2] if uri[2].startswith(b"/") else b"/" + uri[2]


def body_length(headers: dict[bytes, list[bytes]], minor: bytes) -> int | None:
    """Return the length of the body in bytes, or None if it comes in chunks (RFC 9112, 6.3).

    Raises HTTPException 400 if the headers leave the length unclear, and 501 for a transfer coding
    that is not known here.
    """
    lengths = headers.get(b"content-length", [])
    if codings := headers.get(b"transfer-encoding"):
        names = [name.strip(b" \t") for name in b",".join(codings).lower().split(b",")]
        if names[-1] != b"chunked" or names.count(b"chunked") > 1 or lengths or minor == b"0":
            raise HTTPException(400, BAD_FRAMING)
        if len(names) > 1:
            raise HTTPException(501, "No other transfer coding than chunked is known here.")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not LENGTH.fullmatch(lengths[0]):
        raise HTTPException(400, BAD_FRAMING)
    return int(lengths[0])
