"""The environment, read once."""

import ipaddress
import os
import re
from typing import Annotated, Literal

import msgspec
import psycopg
from msgspec import Meta
from psycopg.conninfo import conninfo_to_dict

from db.texts import printable

# Connections of each worker for the pages under /inspect, apart from the service's: a page neither
# takes one of those nor waits for one when they are all stuck, which is when people look inside.
INSPECTION_POOL_SIZE = 2


class SettingsError(SystemExit):
    """A variable has a value that cannot be used: the start ends here and names it."""


# The characters of a bearer token, RFC 6750.
_TOKEN = "[A-Za-z0-9._~+/-]+=*"

# Characters of a token, without its padding, where others reach the service. 16 drawn at random,
# even from hexadecimal digits, take 300,000 years to guess at a million guesses a second.
TOKEN_LENGTH = 16

# A name of DNS, an address of IPv4, or one of IPv6 as it stands in a Host header.
_HOST_NAME = r"([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])"

# A URI with an @ too many. libpq lets a password end at the first @, or not begin if it has a /,
# takes what follows for the host, and tells the log that it cannot find it.
_CUT_PASSWORD = re.compile(r"postgres(?:ql)?://(?:[^@/]*@)?+[^@?]*@")


class Settings(msgspec.Struct, frozen=True, rename=str.upper):
    """One field for each variable of docs/operating.md's table, with its default and bounds."""

    database_url: str | None = None
    data_dir: str = ".postgres"
    # The folder of the resources' folders. Unset: the sample's, which is sql/ of the checkout.
    resources: str | None = None
    # For development: changes of the files under RESOURCES are taken up without a restart.
    reload: bool = False
    host: str = "127.0.0.1"
    # Further names, with commas between, by which browsers reach a service without a token.
    allowed_hosts: Annotated[str, Meta(pattern=f"^{_HOST_NAME}(,{_HOST_NAME})*\\Z")] | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000  # 0 takes any free port
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    pool_size: Annotated[int, Meta(ge=1, le=1000)] = 8
    # A worker serves thousands a second, so that the last of these waits for a fraction of one.
    pool_queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 512
    retry_deadline: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0  # seconds
    pipeline: bool = True
    # A pooler in transaction mode, as pgbouncer's, is between: each transaction may have another
    # session, so that none is prepared for it, and start-up options reach none.
    pooler: bool = False
    # Seconds between the signal to end and the end of listening. None are needed where nobody asks
    # /ready, and Ctrl-C should be quick.
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    max_body: Annotated[int, Meta(ge=64, le=2**30)] = 16384  # bytes
    # Unset: what the server says that it is, when the service starts.
    engine: Literal["postgresql", "yugabytedb", "cockroachdb"] | None = None
    # Several, with commas between, while one takes over from another.
    api_token: Annotated[str, Meta(pattern=f"^{_TOKEN}(,{_TOKEN})*\\Z")] | None = None
    allow_anonymous: bool = False
    log_requests: bool = False

    @property
    def tokens(self) -> list[str]:
        """The tokens of API_TOKEN."""
        return self.api_token.split(",") if self.api_token else []

    @property
    def hosts(self) -> list[str] | None:
        """The Host names that are served beside those that mean loopback; None serves any.

        With a token none needs to be refused, for no page of another site can send it.
        """
        if self.tokens or not (self.allowed_hosts or is_loopback(self.host)):
            return None
        return self.allowed_hosts.split(",") if self.allowed_hosts else []

    @property
    def connections(self) -> int:
        """How many connections all workers have at most."""
        return self.workers * (self.pool_size + INSPECTION_POOL_SIZE)


def read_settings() -> Settings:
    """Read the environment; an empty variable counts as unset.

    Raises SettingsError, whose message names the variable.
    """
    given = {name: value for name, value in os.environ.items() if value}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error).replace("`$.", "`")) from error
    if settings.pooler and settings.engine == "yugabytedb":
        raise SettingsError("POOLER=1 cannot pass on a setting that ENGINE=yugabytedb needs")
    for address in re.findall(r"\[(.*?)\]", settings.allowed_hosts or ""):
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise SettingsError("ALLOWED_HOSTS has in brackets what is no IPv6 address") from None
    if settings.database_url is not None:
        if _CUT_PASSWORD.match(settings.database_url):
            raise SettingsError("DATABASE_URL: in a password write @ as %40 and / as %2F")
        try:
            conninfo_to_dict(settings.database_url)
        except psycopg.ProgrammingError:
            # The cause is left out: libpq quotes the string, and with it a password.
            raise SettingsError("DATABASE_URL is neither a libpq URI nor key=value") from None
    if not is_loopback(settings.host):
        if not (settings.tokens or settings.allow_anonymous):
            raise SettingsError(
                f"HOST={printable(settings.host)} opens the service to others without a token: "
                "set API_TOKEN, or ALLOW_ANONYMOUS=1 if that is meant"
            )
        if any(len(token.rstrip("=")) < TOKEN_LENGTH for token in settings.tokens):
            raise SettingsError(
                f"API_TOKEN has a token that others would guess: each needs {TOKEN_LENGTH} "
                "characters at least, as of `openssl rand -hex 16`"
            )
    return settings


def is_loopback(host: str) -> bool:
    """Tell whether a name, or an address without brackets, means this machine to all on it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
