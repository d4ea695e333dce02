"""Parses requests from a connection's bytes, strictly by the grammar of RFC 9110 and 9112.

What could be read in two ways is refused, because a proxy in front may have read it in the other
way. No part of a request is guessed at, repaired or skipped.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address

from starlette.exceptions import HTTPException

# The most bytes of a request line with its headers, and the most headers. HAProxy's defaults are
# about the same. Trailers, and the framing of chunks, have the same limits.
MAX_HEAD = 16384
MAX_HEADERS = 100

# The bytes of a chunk that has one byte of the body. A chunked body may take as many for each of
# its bytes, and MAX_HEAD besides.
FRAMED_BYTE = len(b"1\r\nx\r\n")

# PATCH, and the methods of RFC 9110 except for CONNECT, which is for proxies.
METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"}

# The headers that this parser reads. They say where the request ends, which host it is for, what
# its sender waits for, and how long the body may be.
OURS = {
    *(b"host", b"content-length", b"content-type", b"transfer-encoding", b"connection", b"expect"),
    b"authorization",
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
HEAD = re.compile(LINE + rb"(?:" + FIELD + rb")*+")
FIRST_LINE = re.compile(LINE)
HEADER = re.compile(FIELD)
BEGUN = re.compile(TEXT + rb"\r?")
EMPTY_LINES = re.compile(rb"(?:\r\n)*+")
CHUNK = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:[ \t]*+;[ \t]*+" + TOKEN + rb"(?:[ \t]*+=[ \t]*+"
    rb"(?:" + TOKEN + rb"|\"(?:[^\x00-\x08\x0a-\x1f\x7f\"\\]|\\[\t -~\x80-\xff])*+\"))?)*+\r\n"
)
# A DNS name or an address, with a port. A URI's host may have other characters, but no name in use
# has them. An http URI with an empty name is an error.
HOST = re.compile(rb"([A-Za-z0-9._~%-]++|\[[0-9A-Fa-f:.]++\])(?::([0-9]{0,5}))?")
URI = re.compile(rb"(?i:https?)://([^/?]*+)(.*+)")
# A hundred digits are more than any body's length has, and int() refuses more than 4,300.
LENGTH = re.compile(rb"[0-9]{1,100}")

# What JSON may have before its first character.
BLANK = b" \t\r\n"

NOT_HTTP = "This is not HTTP/1.1."
BAD_FRAMING = "Where the body ends is not clear."


class Awaits(Enum):
    """The part of the next request that has not arrived yet."""

    HEAD = 1
    BODY = 2
    BODY_AFTER_CONTINUE = 3  # the client waits for 100 Continue before it sends the body


@dataclass(slots=True)
class Request:
    """A request with its whole body, unless that is streamed, and without its trailers.

    The names of its headers are in lower case.
    """

    method: str
    path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    length: int | None  # the body's length in bytes, or None if it comes in chunks
    expects_continue: bool  # whether the client asks for 100 Continue
    streamed: bool  # whether the body is lines of JSON, and follows the request in parts
    takes_array: bool  # whether the body may be a JSON array
    body: bytes = b""


class Requests(Iterator[Request | Awaits | bytes]):
    """The requests of one connection. Add the bytes that arrive to `data`, and call next().

    next() returns a request, or an Awaits if a part of it has not arrived yet. After a request that
    is streamed it returns the parts of the body, of any length, and b"" at the end. It raises
    HTTPException for what is refused: 400, 413 if the body has more than `max_body` bytes, or than
    `max_array` if it is a JSON array, 417, 431 or 501. After that there is no next request.
    """

    def __init__(self, max_body: int, max_array: int = 0) -> None:
        self.data = bytearray()  # the bytes that have arrived, without those of returned requests
        self.is_head = False  # whether the request that is being read begins as a HEAD
        self._max_body = max_body
        self._max_array = max(max_body, max_array)
        self._most = self._max_array  # the most bytes of the body that is being read
        self._streamed = False
        self._length: int | None = None  # of a streamed body
        self._requests = self._parse()

    def __next__(self) -> Request | Awaits | bytes:
        return next(self._requests)

    def _parse(self) -> Generator[Request | Awaits | bytes, None, None]:
        while True:
            yield (yield from self._request())  # a variable would keep the body in memory
            if self._streamed:
                if self._length is None:
                    yield from self._chunks(bounded=False)
                else:
                    yield from self._parts(self._length)
                yield b""

    def _request(self) -> Generator[Awaits, None, Request]:
        request = parse_head((yield from self._head()))
        self._streamed, self._length = request.streamed, request.length
        self._most = self._max_array if request.takes_array else self._max_body
        if request.length is not None and request.length > self._most and not self._streamed:
            raise too_large(self._most)
        if request.expects_continue and request.length != 0 and not self.data:
            yield Awaits.BODY_AFTER_CONTINUE
        if request.streamed:
            return request
        if request.length is None:
            body = bytearray()
            for part in self._chunks(bounded=True):
                if isinstance(part, bytes):
                    body += part
                else:
                    yield part
            request.body = bytes(body)
        elif request.length:
            if request.length > self._max_body and not (yield from self._is_array(b"")):
                raise too_large(self._max_body)
            request.body = yield from self._take(request.length)
        return request

    def _is_array(self, first: bytes) -> Generator[Awaits, None, bool]:
        """Tell whether a body is an array, by its `first` byte, or by `data` if that is empty."""
        while not (first := first or bytes(self.data.lstrip(BLANK)[:1])):
            if len(self.data) > self._max_body:
                return False
            yield Awaits.BODY
        return first == b"["

    def _head(self) -> Generator[Awaits, None, bytes]:
        """Return the request line and the headers, with the CRLF of the last one.

        No byte is looked at twice, however small the pieces are in which they arrive.
        """
        # Counts of bytes: the empty lines that were dropped, what the last round has seen, and the
        # whole lines that are good.
        skipped = seen = good = 0
        while True:
            if self.data.startswith(b"\r"):  # RFC 9112, 2.2: leading empty lines are ignored
                match = EMPTY_LINES.match(self.data)
                assert match is not None
                skipped += match.end()
                del self.data[: match.end()]
                seen = 0
            self.is_head = self.data.startswith(b"HEAD ")
            # The first bytes of the end may have arrived with the piece before.
            end = self.data.find(b"\r\n\r\n", max(0, seen - 3)) + 2
            if end >= 2 and skipped + end + 2 <= MAX_HEAD:
                head = bytes(self.data[:end])
                del self.data[: end + 2]
                return head
            if skipped > MAX_HEAD:
                raise too_many_headers()
            # Look at no more than if the bytes arrived one by one, so that the answer does not
            # depend on the pieces.
            most = min(end if end >= 2 else len(self.data), MAX_HEAD + 1 - skipped)
            while stop := self.data.find(b"\n", max(good, seen), most) + 1:
                if not (HEADER if good else FIRST_LINE).fullmatch(self.data, good, stop):
                    raise HTTPException(400, NOT_HTTP)
                good = stop
            if not BEGUN.fullmatch(self.data, max(good, seen - 1), most):
                raise HTTPException(400, NOT_HTTP)
            if len(self.data) + skipped > MAX_HEAD:
                raise too_many_headers()
            seen = len(self.data)
            yield Awaits.HEAD

    def _chunks(self, *, bounded: bool) -> Generator[Awaits | bytes, None, None]:
        """Yield the parts of a body in chunks (RFC 9112, 7.1), and check its trailers."""
        total, most, first = 0, self._max_body, b""
        spare = MAX_HEAD
        while True:
            line = yield from self._line()
            match = CHUNK.fullmatch(line)
            if match is None:
                raise HTTPException(400, BAD_FRAMING)
            size = int(match[1], 16)
            total += size
            spare += FRAMED_BYTE * size - len(line) - 2
            if spare < 0 or (bounded and total > self._most):
                raise too_large(self._most)
            if bounded and total > most:
                if not (yield from self._is_array(first)):
                    raise too_large(most)
                most = self._most
            if size == 0:
                break
            for part in self._parts(size):
                first = first or (part.lstrip(BLANK)[:1] if isinstance(part, bytes) else b"")
                yield part
            if (yield from self._take(2)) != b"\r\n":
                raise HTTPException(400, BAD_FRAMING)
        # Trailers are checked and dropped, because a proxy that checked the headers has not seen
        # them (RFC 9110, 6.5.1).
        spare = MAX_HEAD
        for _ in range(MAX_HEADERS + 1):
            line = yield from self._line()
            if line == b"\r\n":
                return
            spare -= len(line)
            if not HEADER.fullmatch(line):
                raise HTTPException(400, NOT_HTTP)
            if spare < 0:
                break
        raise too_many_headers()

    def _parts(self, size: int) -> Generator[Awaits | bytes, None, None]:
        """Yield `size` bytes, in pieces as they arrive."""
        while size:
            if not self.data:
                yield Awaits.BODY
                continue
            part = bytes(self.data[:size])
            del self.data[:size]
            size -= len(part)
            yield part

    def _line(self) -> Generator[Awaits, None, bytes]:
        seen = 0
        while (end := self.data.find(b"\n", seen) + 1) == 0 and len(self.data) <= MAX_HEAD:
            seen = len(self.data)
            yield Awaits.BODY
        if not 0 < end <= MAX_HEAD:
            raise too_many_headers()
        return (yield from self._take(end))

    def _take(self, size: int) -> Generator[Awaits, None, bytes]:
        while len(self.data) < size:
            yield Awaits.BODY
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken


def too_large(most: int) -> HTTPException:
    """Return the 413 for a body with more bytes than `most`."""
    return HTTPException(413, f"The body is over {most} bytes.")


def too_many_headers() -> HTTPException:
    """Return the 431 for a head, trailers or framing that are too large."""
    return HTTPException(431, f"Over {MAX_HEAD} bytes or {MAX_HEADERS} headers.")


def parse_head(head: bytes) -> Request:
    """Return the request of a head, still without its body.

    Raises HTTPException 400, 417, 431 or 501.
    """
    match = HEAD.fullmatch(head)
    if match is None:
        raise HTTPException(400, NOT_HTTP)
    method, target, minor = match.groups()
    headers = []
    ours: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\r\n")[1:-1]:
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
    media = media_type(types[0]) if method == b"POST" else b""
    length = body_length(ours, minor)
    if method not in METHODS:
        raise HTTPException(501, "This method is not known here.")
    if not target.startswith(b"/"):
        host, target = other_target(method, target)
        if host:
            headers = [each for each in headers if each[0] != b"host"] + [(b"host", host)]
    path, _, query = target.partition(b"?")
    expects = minor == b"1" and b"expect" in ours  # HTTP/1.0 does not know 100 Continue
    if expects and any(value.lower() != b"100-continue" for value in ours[b"expect"]):
        raise HTTPException(417, "Only 100-continue can be expected.")
    options = b",".join(ours.get(b"connection", [])).lower().split(b",")
    return Request(
        method=method.decode(),
        path=path,
        query=query,
        version="1." + minor.decode(),
        headers=headers,
        keep_alive=minor == b"1" and b"close" not in [each.strip(b" \t") for each in options],
        length=length,
        expects_continue=expects,
        streamed=media == LINES,
        takes_array=media == JSON,
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
