"""Lets only callers with a token of API_TOKEN in; browsers give it as a password for the pages."""

import base64
import binascii
import hmac

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from web.problem import problem

# Paths without a token, because the probes of supervisors and load balancers have none.
OPEN = ("/live", "/ready")


class RequireToken:
    """ASGI middleware that answers 401 to requests without one of the tokens."""

    def __init__(self, app: ASGIApp, tokens: list[str]) -> None:
        self.app = app
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN or self._allows(Request(scope)):
            await self.app(scope, receive, send)
            return
        challenge = 'Bearer realm="onerow"'
        if is_page(scope["path"]):
            challenge = f'Basic realm="onerow", charset="UTF-8", {challenge}'
        headers = {"WWW-Authenticate": challenge}
        await problem(401, "A valid token is needed.", headers)(scope, receive, send)

    def _allows(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token = given.strip().encode()
        if scheme.lower() == "basic" and is_page(request.scope["path"]):
            try:
                _, _, token = base64.b64decode(token, validate=True).partition(b":")
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        # The token is compared with all, each in constant time, so that the time tells nothing
        # about a token that is right in part.
        return sum(hmac.compare_digest(token, known) for known in self._tokens) > 0


def is_page(path: str) -> bool:
    """Tell whether a path is for browsers, which ask for a password and send no bearer token."""
    return path in ("/", "/inspect") or path.startswith("/inspect/")
