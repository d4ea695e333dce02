"""What a page of another site may make a browser do with a service that asks for no token: nothing.

Such a page may send what a form could; and once its own name leads to this machine (DNS rebinding)
browsers let it send and read anything, under that name.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from db.settings import is_loopback
from web.problem import problem

# A Host header: a name, an address or one in brackets, and perhaps a port (RFC 3986, 3.2.2).
_HOST = re.compile(r"\[([0-9a-f:.]+)\](?::[0-9]*)?|([a-z0-9._-]+)(?::[0-9]*)?")

# What changes nothing, and may come from a link of another site's.
_READING = ("GET", "HEAD")

# What browsers say of a request that no other site has made (Fetch Metadata): the second is one
# that the user made, say by the address bar.
_OWN = (b"same-origin", b"none")


class OwnPages:
    """ASGI middleware that answers 421 to a foreign Host, and 403 to a change by a foreign page.

    `hosts` are names that are served beside those that mean loopback; None serves any.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        self.app = app
        self._any = hosts is None
        self._hosts = {host.lower().rstrip(".") for host in hosts or ()}
        # Callers of one service send few, and to read one anew costs more than all else here.
        self._serves = lru_cache(self._is_served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host")
            # A request without a Host, which HTTP/1.0 has, comes from no browser.
            if not (self._any or host is None or self._serves(host)):
                refusal = problem(421, "The name in Host is not this service's: see ALLOWED_HOSTS.")
                await refusal(scope, receive, send)
                return
            if scope["method"] not in _READING and _is_foreign(headers):
                refusal = problem(403, "A page of another origin may change nothing here.")
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_served(self, header: bytes) -> bool:
        found = _HOST.fullmatch(header.decode("latin-1").lower())
        if found is None:
            return False
        address, name = found.groups()
        if address is not None:
            return is_loopback(address) or f"[{address}]" in self._hosts
        name = name.removesuffix(".")
        # Browsers look localhost and what ends in it up nowhere (RFC 6761, 6.3).
        return is_loopback(name) or name.endswith(".localhost") or name in self._hosts


def _is_foreign(headers: dict[bytes, bytes]) -> bool:
    if headers.get(b"sec-fetch-site", b"none") not in _OWN:
        return True
    origin = headers.get(b"origin")
    if origin is None:
        return False
    # The scheme may be another's than ours: a proxy in between may have HTTPS with the browser.
    scheme, _, authority = origin.partition(b"://")
    own = headers.get(b"host", b"")
    return scheme not in (b"http", b"https") or authority.lower() != own.lower()
