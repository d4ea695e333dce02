"""Reads requests from a connection's bytes, as strictly as web.head reads their heads."""

import re
from collections.abc import Generator, Iterator
from enum import Enum

from starlette.exceptions import HTTPException

from web.head import (
    BAD_FRAMING,
    FIRST_LINE,
    HEADER,
    MAX_HEAD,
    MAX_HEADERS,
    NOT_HTTP,
    TEXT,
    TOKEN,
    Request,
    parse_head,
    too_many_headers,
)

# The bytes of a chunk that has one byte of the body. A chunked body may take as many for each of
# its bytes, and MAX_HEAD besides.
FRAMED_BYTE = len(b"1\r\nx\r\n")

BEGUN = re.compile(TEXT + rb"\r?")
EMPTY_LINES = re.compile(rb"(?:\r\n)*+")
CHUNK = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:[ \t]*+;[ \t]*+" + TOKEN + rb"(?:[ \t]*+=[ \t]*+"
    rb"(?:" + TOKEN + rb"|\"(?:[^\x00-\x08\x0a-\x1f\x7f\"\\]|\\[\t -~\x80-\xff])*+\"))?)*+\r\n"
)

# What JSON may have before its first character.
BLANK = b" \t\r\n"


class Awaits(Enum):
    """The part of the next request that has not arrived yet."""

    HEAD = 1
    BODY = 2
    BODY_AFTER_CONTINUE = 3  # the client waits for 100 Continue before it sends the body


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
        headers = request.headers
        self._streamed, self._length = headers.streamed, headers.length
        self._most = self._max_array if headers.is_json else self._max_body
        if headers.length is not None and headers.length > self._most and not self._streamed:
            raise too_large(self._most)
        if headers.expects_continue and headers.length != 0 and not self.data:
            yield Awaits.BODY_AFTER_CONTINUE
        if headers.streamed:
            return request
        if headers.length is None:
            body = bytearray()
            for part in self._chunks(bounded=True):
                if isinstance(part, bytes):
                    body += part
                else:
                    yield part
            request.body = bytes(body)
        elif headers.length:
            if headers.length > self._max_body and not (yield from self._is_array(b"")):
                raise too_large(self._max_body)
            request.body = yield from self._take(headers.length)
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
