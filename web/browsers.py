"""Keeps pages of other sites, open in a local browser, away from a service without a good token.

Browsers let any page send here what an HTML form can send. If a page's own name leads to this
machine (DNS rebinding), they also let it send other requests under that name, and read the answers.
"""

from collections.abc import Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from db.settings import is_loopback
from web.head import parse_host
from web.problem import problem

# The schemes that a page of the service can have, with the port that their URIs may leave out.
_PORTS = {b"http": 80, b"https": 443}

# Methods that change nothing, so that links of other sites may lead here.
_READING = ("GET", "HEAD")

# The values of Sec-Fetch-Site (Fetch Metadata) that no other site's request has. "none" means that
# the user made the request, for example in the address bar.
_OWN = (b"same-origin", b"none")


class OwnPages:
    """ASGI middleware that answers 421 to a foreign Host, and 403 to a change by a foreign page.

    `hosts` are the names that are served beside those that mean loopback. None serves any name.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        self.app = app
        self._any = hosts is None
        parsed = (parse_host(host.encode()) for host in hosts or ())
        self._hosts = {host[0] for host in parsed if host is not None}
        # The clients of one service send few different values, and parsing an address takes longer
        # than all other steps here.
        self._is_served = lru_cache(self._looks_served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = scope["headers"]
            host = next((value for name, value in headers if name == b"host"), None)
            # A request without a Host, as HTTP/1.0 allows, comes from no browser.
            if not (self._any or host is None or self._is_served(host)):
                refusal = problem(421, "The name in Host is not this service's: see ALLOWED_HOSTS.")
                await refusal(scope, receive, send)
                return
            if scope["method"] not in _READING and _is_foreign(headers, host):
                refusal = problem(403, "A page of another origin may change nothing here.")
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _looks_served(self, header: bytes) -> bool:
        host = parse_host(header)
        if host is None:
            return False
        name, _ = host
        # Browsers resolve localhost and names that end in it to loopback without asking DNS
        # (RFC 6761, 6.3), so that no page can rebind them.
        return is_loopback(name.strip("[]")) or name.endswith(".localhost") or name in self._hosts


def _is_foreign(headers: Iterable[tuple[bytes, bytes]], host: bytes | None) -> bool:
    """Tell whether a header says that another site's page made the request.

    No browser sends one of these headers twice, so one foreign value is enough.
    """
    for name, value in headers:
        if name == b"sec-fetch-site" and value not in _OWN:
            return True
        if name == b"origin" and not _is_own(value, host or b""):
            return True
    return False


def _is_own(origin: bytes, host: bytes) -> bool:
    # The scheme may be https, though the service speaks http, because of a proxy in between.
    scheme, _, authority = origin.partition(b"://")
    theirs, own = parse_host(authority), parse_host(host)
    if scheme not in _PORTS or theirs is None or own is None:
        return False
    default = _PORTS[scheme]
    return theirs[0] == own[0] and (theirs[1] or default) == (own[1] or default)
