"""Well-formed and malformed requests, and the statuses that come back for each."""

LAST = b"GET /live HTTP/1.1\r\nHost: onerow\r\nConnection: close\r\n\r\n"

# The ways to reach the service, in the order in which CASES give the statuses of each.
WAYS = ("direct", "haproxy", "nginx")


def post(
    *fields: str, body: bytes = b'{"name":"NAME"}', length: bool = True, to: str = ""
) -> bytes:
    """Return a POST of a department. The test puts a new name in the place of NAME."""
    lines = [
        f"POST {to or '/departments'} HTTP/1.1",
        "Host: onerow",
        "Content-Type: application/json",
        *fields,
    ]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*parts: str, trailers: str = "", fields: tuple[str, ...] = ()) -> bytes:
    """Return a POST in chunks; the last one, of length zero, is added here."""
    body = "".join(parts) + "0\r\n" + trailers + "\r\n"
    return post("Transfer-Encoding: chunked", *fields, body=body.encode(), length=False)


def get(line: str = "GET /live HTTP/1.1", *fields: str, host: str | None = "onerow") -> bytes:
    """Return a request without a body."""
    lines = [line, *([f"Host: {host}"] if host is not None else []), *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


NAMED = 'f\r\n{"name":"NAME"}\r\n'
SMUGGLED = post(body=b'{"name":"SMUGGLED"}')
H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
)
C = "Transfer-Encoding: chunked"

# The statuses that come back, and what is sent. Slashes separate the statuses where WAYS differ.
# `none` means that nothing comes back, and `...` that the connection waits for the rest of the
# request. HAProxy answers the preface of HTTP/2 in HTTP/2, unless its first bytes come alone.
CASES = {
    # Accepted
    "a body with its length": ("201 200", post()),
    "a body in chunks": ("201 200", chunked(NAMED)),
    "several chunks": ("201 200", chunked('5\r\n{"nam\r\n', 'a\r\ne":"NAME"}\r\n')),
    "no body": ("200 200", get()),
    "an empty line before": ("200 200", b"\r\n" + get()),
    "HTTP/1.0": ("200", get("GET /live HTTP/1.0", host=None)),
    "HTTP/1.0 with a Host": ("200", get("GET /live HTTP/1.0")),
    "blanks around a value": ("200 200", get("GET /live HTTP/1.1", "X: \t a \t")),
    "a value not in ASCII": ("200 200", get("GET /live HTTP/1.1", "X: \u00e9")),
    "an offer of h2c, with a body": ("201 200", post(*H2C)),
    "an offer of h2c, in chunks": ("201 200", chunked(NAMED, fields=H2C)),
    "an offer of h2c, without a body": ("200 200", get("GET /live HTTP/1.1", *H2C)),
    "an offer of h2c, whose body is a request": ("400 200", post(*H2C, body=SMUGGLED)),
    "an offer of a WebSocket": (
        "200 200",
        get(
            "GET /live HTTP/1.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ),
    ),
    "an offer of TLS": ("201 200", post("Connection: Upgrade", "Upgrade: TLS/1.0, HTTP/2.0")),
    "a body that is a request": ("400 200", post(body=SMUGGLED)),
    "a body that nobody asked for": (
        "200 200",
        get("GET /live HTTP/1.1", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
    ),
    "a DELETE with a body": (
        "204 200",
        get("DELETE /departments/ID HTTP/1.1", "Content-Length: 2") + b"{}",
    ),
    "an absolute target": ("200 200", get("GET http://onerow/live HTTP/1.1")),
    "an absolute target without a path": ("200 200", get("GET http://onerow HTTP/1.1")),
    "an absolute target of another host": (
        "421 200 / 400 / 421 200",
        get("GET http://elsewhere/live HTTP/1.1"),
    ),
    "OPTIONS *": ("404 200 / 404 200 / 400", get("OPTIONS * HTTP/1.1")),
    "a method that is not for this path": ("405 200", get("PATCH /departments HTTP/1.1")),
    "extensions of chunks": ("201 200", chunked('f;a;b=c ; d = "e \\" f"\r\n{"name":"NAME"}\r\n')),
    "a trailer": ("201 200", chunked(NAMED, trailers="X: a\r\n")),
    "codings of an answer": ("201 200", post("TE: trailers, deflate", "Accept-Encoding: gzip")),
    "100 Continue": ("201 200", post("Expect: 100-continue")),
    "HTTP/1.0 that expects 100 Continue": (
        "201",
        post("Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    ),
    "a length with zeros before it": ("201 200", post("Content-Length: 0015", length=False)),
    "a Content-Type twice": ("201 200", post("Content-Type: application/json")),
    "two Content-Types": ("400 / 400 200 / 400 200", post("Content-Type: text/plain")),
    "two Authorizations": (
        "400 / 400 200 / 400",
        post("Authorization: Bearer a", "Authorization: Bearer a"),
    ),
    "an offer of h2c, with a large body": (
        "413 / 413 200 / 413 200",
        post(*H2C, body=b" " * 16_384 + SMUGGLED),
    ),
    # Trailers
    "a trailer Content-Type": ("201 200", chunked(NAMED, trailers="Content-Type: text/plain\r\n")),
    "a trailer Content-Length": ("201 200", chunked(NAMED, trailers="Content-Length: 3\r\n")),
    "a trailer Transfer-Encoding": (
        "201 200 / 400 / 201 200",
        chunked(NAMED, trailers="Transfer-Encoding: foo\r\n"),
    ),
    "a trailer Host": ("201 200", chunked(NAMED, trailers="Host: elsewhere\r\n")),
    # Refused
    "an unknown coding": ("400 / 400 / 501", post("Transfer-Encoding: foo", length=False)),
    "identity": ("400 / 400 / 501", post("Transfer-Encoding: identity", length=False)),
    "chunked, foo": (
        "400 / 400 / 501",
        post("Transfer-Encoding: chunked, foo", body=NAMED.encode() + b"0\r\n\r\n", length=False),
    ),
    "foo, chunked": (
        "501 / 422 / 501",
        post("Transfer-Encoding: foo, chunked", body=NAMED.encode() + b"0\r\n\r\n", length=False),
    ),
    "gzip, chunked": (
        "501 / 422 / 501",
        post("Transfer-Encoding: gzip, chunked", body=NAMED.encode() + b"0\r\n\r\n", length=False),
    ),
    "identity, chunked": (
        "501 / 422 / 501",
        post(
            "Transfer-Encoding: identity, chunked", body=NAMED.encode() + b"0\r\n\r\n", length=False
        ),
    ),
    "chunked, chunked": (
        "400 / 400 / 501",
        post(
            "Transfer-Encoding: chunked, chunked", body=NAMED.encode() + b"0\r\n\r\n", length=False
        ),
    ),
    "chunked twice": ("400", chunked(NAMED, fields=(C,))),
    "chunked and foo": ("400", chunked(NAMED, fields=("Transfer-Encoding: foo",))),
    "an empty coding": ("400 / 400 200 / 400", chunked(NAMED, fields=("Transfer-Encoding:",))),
    "chunked with a parameter": (
        "400 / 400 / 501",
        post("Transfer-Encoding: chunked;a=b", body=NAMED.encode() + b"0\r\n\r\n", length=False),
    ),
    "xchunked": (
        "400 / 400 / 501",
        post("Transfer-Encoding: xchunked", body=NAMED.encode() + b"0\r\n\r\n", length=False),
    ),
    "a vertical tab before chunked": (
        "400 / 400 / 501",
        post("Transfer-Encoding: \x0bchunked", body=NAMED.encode() + b"0\r\n\r\n", length=False),
    ),
    "a length and chunks": ("400 / 201 / 400", chunked(NAMED, fields=("Content-Length: 15",))),
    "chunks in HTTP/1.0": ("400", chunked(NAMED).replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    "a size of zz": ("400", chunked('zz\r\n{"name":"NAME"}\r\n')),
    "a size that is none": ("400", chunked('\r\n{"name":"NAME"}\r\n')),
    "a size with a sign": ("400", chunked('+f\r\n{"name":"NAME"}\r\n')),
    "a size below nothing": ("400", chunked('-f\r\n{"name":"NAME"}\r\n')),
    "a size with 0x": ("400", chunked('0xf\r\n{"name":"NAME"}\r\n')),
    "a size with a blank before it": ("400", chunked(' f\r\n{"name":"NAME"}\r\n')),
    "a size with a blank behind it": (
        "400 / 201 200 / 201 200",
        chunked('f \r\n{"name":"NAME"}\r\n'),
    ),
    "a size with an underscore": ("400", chunked('0_f\r\n{"name":"NAME"}\r\n')),
    "a size of 17 digits": (
        "400 / 201 200 / 201 200",
        chunked('0000000000000000f\r\n{"name":"NAME"}\r\n'),
    ),
    "a size past all numbers": (
        "413 / 400 / 400",
        chunked('ffffffffffffffff\r\n{"name":"NAME"}\r\n'),
    ),
    "a size of 65 bits": ("400", chunked('1000000000000000f\r\n{"name":"NAME"}\r\n')),
    "a chunk longer than its size": ("400", chunked('e\r\n{"name":"NAME"}\r\n')),
    "a chunk shorter than its size": (
        "400 / 201 200 / 201 200",
        chunked('10\r\n{"name":"NAME"}\r\n'),
    ),
    "a bare LF behind a size": ("400 / 201 200 / 201 200", chunked('f\n{"name":"NAME"}\r\n')),
    "a bare LF behind a chunk": ("400 / 201 200 / 201 200", chunked('f\r\n{"name":"NAME"}\n')),
    "a bare CR behind a size": ("400", chunked('f\r{"name":"NAME"}\r\n')),
    "a bare LF in an extension": ("400", chunked('f;a\nb\r\n{"name":"NAME"}\r\n')),
    "a NUL in an extension": (
        "400 / 201 200 / 201 200",
        chunked('f;a\x00b\r\n{"name":"NAME"}\r\n'),
    ),
    "an extension without a name": (
        "400 / 201 200 / 201 200",
        chunked('f;\r\n{"name":"NAME"}\r\n'),
    ),
    "a bare LF at the end": ("400 / 201 200 / 201 200", chunked(NAMED)[:-2] + b"\n"),
    "a trailer without a colon": ("400 / 400 / 201 200", chunked(NAMED, trailers="X\r\n")),
    "a trailer that goes on": (
        "400 / 201 200 / 201 200",
        chunked(NAMED, trailers="X: a\r\n b\r\n"),
    ),
    "a DELETE with a broken body": ("400", get("DELETE /departments/ID HTTP/1.1", C) + b"zz\r\n"),
    "a DELETE with an unknown coding": (
        "400 / 400 / 501",
        get("DELETE /departments/ID HTTP/1.1", "Transfer-Encoding: foo"),
    ),
    "a length twice": ("400 / 201 200 / 400", post("Content-Length: 15")),
    "two lengths": ("400", post("Content-Length: 14")),
    "a list of lengths": ("400 / 201 200 / 400", post("Content-Length: 15, 15", length=False)),
    "a length with a sign": ("400", post("Content-Length: +15", length=False)),
    "a length below nothing": ("400", post("Content-Length: -15", length=False)),
    "a length in hex": ("400", post("Content-Length: 0xf", length=False)),
    "a length with a blank": ("400", post("Content-Length: 1 5", length=False)),
    "an empty length": ("400", post("Content-Length:", length=False)),
    "a length in other digits": ("400", post("Content-Length: \u0661\u0665", length=False)),
    "a length past the limit": ("413 / 413 ... / ...", post("Content-Length: 16385", length=False)),
    "a length past 64 bits": (
        "413 / 400 / 400",
        post("Content-Length: 18446744073709551631", length=False),
    ),
    "a length of 5,000 digits": ("400", post(f"Content-Length: {'9' * 5000}", length=False)),
    "a length past the limit, and 100 Continue": (
        "413 / 413 ... / ...",
        post("Content-Length: 16385", "Expect: 100-continue", length=False),
    ),
    "another expectation": ("417 / 417 200 / 201 200", post("Expect: 200-ok")),
    "bare LFs": ("400 / 201 200 / 201 200", post().replace(b"\r\n", b"\n")),
    "a bare LF behind the first line": (
        "400 / 201 200 / 201 200",
        post().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    ),
    "a bare LF behind a header": ("400", post("X: a\nContent-Length: 1")),
    "a bare CR in a header": ("400", post("X: a\rb")),
    "a bare LF at the end of the headers": (
        "400 / 201 200 / 201 200",
        post().replace(b"\r\n\r\n", b"\r\n\n"),
    ),
    "a header that goes on": ("400 / 201 200 / 400", post("X: a", " b")),
    "a first header that goes on": ("400", b"GET /live HTTP/1.1\r\n X: a\r\nHost: onerow\r\n\r\n"),
    "a blank before the colon": ("400", post("Content-Length : 15", length=False)),
    "a tab before the colon": ("400", post("Transfer-Encoding\t: chunked")),
    "a NUL in a value": ("400 / 400 200 / 400", post("X: a\x00b")),
    "a control character in a value": ("400 / 400 200 / 400 200", post("X: a\x08b")),
    "a NUL in a name": ("400", post("X\x00: a")),
    "a name with a blank": ("400", post("X Y: a")),
    "a name with brackets": ("400 / 400 / 201 200", post("X(Y): a")),
    "a name not in ASCII": ("400 / 400 / 201 200", post("X\u00e9: a")),
    "an empty name": ("400", post(": a")),
    "no colon": ("400 / 400 / 201 200", post("X")),
    "no Host": ("400 / 400 200 / 400", get(host=None)),
    "two Hosts": ("400 / 200 200 / 400", get("GET /live HTTP/1.1", "Host: onerow")),
    "two Hosts in HTTP/1.0": ("400 / 200 / 400", get("GET /live HTTP/1.0", "Host: onerow")),
    "two other Hosts": ("400", get("GET /live HTTP/1.1", "Host: elsewhere")),
    "an empty Host": ("400 / 400 200 / 400", get(host="")),
    "a Host with a blank": ("400 / 400 200 / 400", get(host="a b")),
    "a Host with a path": ("400 / 400 200 / 400", get(host="onerow/a")),
    "a Host with a user": ("400 / 400 200 / 400 200", get(host="a@onerow")),
    "a Host with a comma": ("400 / 400 200 / 400", get(host="onerow, elsewhere")),
    "a Host with a port that is none": ("400 / 400 200 / 200 200", get(host="onerow:a")),
    "a Host with a port past all ports": ("400 / 400 200 / 200 200", get(host="onerow:99999")),
    "a Host with IPv4 in brackets": ("400 / 400 200 / 400 200", get(host="[127.0.0.1]")),
    "a Host not in ASCII": ("400 / 400 200 / 400 200", get(host="\u00e9")),
    "a Host with half a bracket": ("400 / 400 200 / 400 200", get(host="[::1")),
    "HTTP/0.9": ("400 / 400 / none", b"GET /live\r\n"),
    "HTTP/0.9 with a version": ("400", get("GET /live HTTP/0.9")),
    "HTTP/1.2": ("400 / 200 200 / 200 200", get("GET /live HTTP/1.2")),
    "HTTP/2.0": ("400 / 200 200 / 505", get("GET /live HTTP/2.0")),
    "HTTP/2's preface": ("400 / none or 400 / 400", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/1.10": ("400 / 400 / 200 200", get("GET /live HTTP/1.10")),
    "HTTP/01.1": ("400", get("GET /live HTTP/01.1")),
    "http/1.1": ("400", get("GET /live http/1.1")),
    "another protocol": ("400", get("GET /live ICE/1.1")),
    "two blanks before the target": ("400 / 200 200 / 200 200", get("GET  /live HTTP/1.1")),
    "two blanks before the version": ("400 / 200 200 / 200 200", get("GET /live  HTTP/1.1")),
    "a blank at the end of the line": ("400 / 400 / 200 200", get("GET /live HTTP/1.1 ")),
    "a tab in the line": ("400 / 200 200 / 400", get("GET\t/live HTTP/1.1")),
    "a blank before the method": ("400", get(" GET /live HTTP/1.1")),
    "a blank in the target": ("400", get("GET /li ve HTTP/1.1")),
    "a fragment": ("400 / 400 / 400 200", get("GET /live#a HTTP/1.1")),
    "an absolute target with a fragment": (
        "400 / 400 / 400 200",
        get("GET http://onerow/live#a HTTP/1.1"),
    ),
    "a target not in ASCII": ("400 / 400 / 400 200", get("GET /\u00e9 HTTP/1.1")),
    "a NUL in the target": ("400", get("GET /\x00 HTTP/1.1")),
    "a target that is a host": ("400", get("GET onerow:80 HTTP/1.1")),
    "a target without a slash": ("400", get("GET live HTTP/1.1")),
    "GET *": ("400 / 400 200 / 400", get("GET * HTTP/1.1")),
    "an absolute target of another scheme": (
        "400 / 400 200 / 200 200",
        get("GET ftp://onerow/live HTTP/1.1"),
    ),
    "an absolute target with a user": (
        "400 / 400 200 / 400",
        get("GET http://a@onerow/live HTTP/1.1"),
    ),
    "an absolute target without a host": ("400 / 400 200 / 400", get("GET http:///live HTTP/1.1")),
    "CONNECT": ("501 / 501 200 / 400", get("CONNECT onerow:80 HTTP/1.1")),
    "CONNECT of a path": ("501 / 400 / 405", get("CONNECT /live HTTP/1.1")),
    "a method that nobody knows": ("501 / 501 200 / 501 200", get("BREW /departments HTTP/1.1")),
    "a method of WebDAV": ("501 / 501 200 / 501 200", get("PROPFIND /departments HTTP/1.1")),
    "a method in lower case": ("501 / 501 200 / 400", get("get /live HTTP/1.1")),
    "a method with a colon": ("400", get("G:T /live HTTP/1.1")),
    "TLS": ("400", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"),
}
