"""The environment, read once."""

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import psycopg
from msgspec import Meta, inspect
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.texts import printable

# How many connections each worker has for the pages under /inspect. They are apart from the pool of
# the service, so that a page takes no request's connection, and still answers when all of those are
# stuck, which is when people look at the pages.
INSPECTION_POOL_SIZE = 2


class SettingsError(SystemExit):
    """Variables have values that cannot be used. The start ends here, with a line for each."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        """`faults` maps each variable to what is wrong with it and what to do."""
        super().__init__("\n".join(printable(f"{name}: {why}") for name, why in faults.items()))
        self.faults = faults


# A bearer token, as RFC 6750 has it.
_TOKEN = "[A-Za-z0-9._~+/-]+=*"

# The fewest characters of a token, without the = at its end, where the service can be reached from
# other machines, or by a page under a name of its own. 16 random hexadecimal digits take 300,000
# years to guess at a million guesses a second.
TOKEN_LENGTH = 16

# A DNS name, an IPv4 address, or an IPv6 address in brackets, as in a Host header.
_HOST_NAME = r"([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])"

# A URI whose password has an unescaped @ or /. libpq would take the rest of the password for a host
# name, and its error message would write that into the log.
_CUT_PASSWORD = re.compile(r"postgres(?:ql)?://(?:[^@/]*@)?+[^@?]*@")


class Settings(msgspec.Struct, frozen=True, rename=str.upper):
    """The environment's variables, with defaults and bounds. docs/operating.md explains each."""

    database_url: str | None = None
    data_dir: str = ".postgres"
    # The folder of the resources' folders. If it is unset, the sample in sql/ is served.
    resources: str | None = None
    # Whether new workers take up each change of the files under RESOURCES, without a restart.
    reload: bool = False
    host: str = "127.0.0.1"
    # Further names, with commas between, by which browsers may reach a service whose callers need
    # no token, or a short one.
    allowed_hosts: (
        Annotated[
            str,
            Meta(
                pattern=f"^{_HOST_NAME}(,{_HOST_NAME})*\\Z",
                description="names or addresses without ports and blanks, with commas between",
            ),
        ]
        | None
    ) = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000  # 0 takes any free port
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    pool_size: Annotated[int, Meta(ge=1, le=1000)] = 8
    # A worker serves thousands of requests a second, so the last of 512 waits less than a second.
    pool_queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 512
    retry_deadline: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0  # seconds
    pipeline: bool = True
    # Whether a pooler in transaction mode, such as pgbouncer's, is in between. There each
    # transaction may have another session, so that no statement stays prepared, and start-up
    # options do not reach the session.
    pooler: bool = False
    # Seconds of serving between the signal to end and the end of listening, for load balancers,
    # which ask /ready. 0 keeps Ctrl-C quick where there is no load balancer.
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    max_body: Annotated[int, Meta(ge=64, le=2**30)] = 16384  # bytes
    # A thousand items of a kilobyte each.
    max_array_body: Annotated[int, Meta(ge=64, le=2**30)] = 2**20  # bytes
    # If it is unset, the service asks the server when it starts.
    engine: Literal["postgresql", "yugabytedb", "cockroachdb"] | None = None
    # One token or several with commas between, so that a new one can replace an old one.
    api_token: (
        Annotated[
            str,
            Meta(
                pattern=f"^{_TOKEN}(,{_TOKEN})*\\Z",
                description="bearer tokens without blanks, with commas between",
            ),
        ]
        | None
    ) = None
    allow_anonymous: bool = False
    log_requests: bool = False
    log_format: Literal["text", "json"] = "text"

    @property
    def tokens(self) -> list[str]:
        """The tokens of API_TOKEN, none if it is unset."""
        return self.api_token.split(",") if self.api_token else []

    @property
    def is_guessable(self) -> bool:
        """Whether a page of another site could call the service: by a short token, or without."""
        return not self.tokens or any(len(each.rstrip("=")) < TOKEN_LENGTH for each in self.tokens)

    @property
    def hosts(self) -> list[str] | None:
        """The Host names that are served beside those that mean loopback, or None for any name.

        With tokens that cannot be guessed any name is served: no page of another site has a token.
        """
        if not (self.is_guessable and (self.allowed_hosts or is_loopback(self.host))):
            return None
        return self.allowed_hosts.split(",") if self.allowed_hosts else []

    @property
    def connections(self) -> int:
        """The most connections that all workers together have."""
        return self.workers * (self.pool_size + INSPECTION_POOL_SIZE)


def read_settings() -> Settings:
    """Read the environment. An empty variable counts as unset.

    Raises SettingsError, which names every variable that is wrong by itself, or else the first one
    that does not go with another.
    """
    given = {name: value for name, value in os.environ.items() if value}
    names = [field.encode_name for field in msgspec.structs.fields(Settings)]
    found = {name: _fault(name, given[name]) for name in names if name in given}
    if faults := {name: why for name, why in found.items() if why}:
        raise SettingsError(faults)
    settings = msgspec.convert(given, Settings, strict=False)
    if settings.pooler and settings.engine == "yugabytedb":
        raise SettingsError({"POOLER": "1 cannot pass on a setting that ENGINE=yugabytedb needs"})
    if not is_loopback(settings.host):
        if not (settings.tokens or settings.allow_anonymous):
            why = (
                f"{settings.host} opens the service to others without a token:"
                " set API_TOKEN, or ALLOW_ANONYMOUS=1 if that is meant"
            )
            raise SettingsError({"HOST": why})
        if settings.tokens and settings.is_guessable:
            why = (
                f"has a token that others would guess: each needs {TOKEN_LENGTH} characters at"
                " least, as of `openssl rand -hex 16`"
            )
            raise SettingsError({"API_TOKEN": why})
    return settings


def _fault(name: str, value: str) -> str | None:
    """Return what is wrong with the value of a variable by itself, or None.

    The text does not have the value, because it may be a secret, perhaps that of another variable.
    """
    try:
        msgspec.convert({name: value}, Settings, strict=False)
    except msgspec.ValidationError:
        (field,) = (each for each in msgspec.structs.fields(Settings) if each.encode_name == name)
        default = "" if field.default is None else f" for {as_written(field.default)}"
        return f"must be {_takes(inspect.type_info(field.type))}, or be unset{default}"
    if name == "ALLOWED_HOSTS":
        for address in re.findall(r"\[(.*?)\]", value):
            try:
                ipaddress.IPv6Address(address)
            except ValueError:
                return "has in brackets what is no IPv6 address"
    if name == "DATABASE_URL":
        if _CUT_PASSWORD.match(value):
            return "in a password write @ as %40 and / as %2F"
        try:
            conninfo_to_dict(value)
        except psycopg.ProgrammingError:
            return "is neither a libpq URI nor key=value"
    return None


def _takes(kind: inspect.Type) -> str:
    """Return in words which values a variable of this type takes."""
    match kind:
        case inspect.UnionType(types=(one, _)):  # the second type is None
            return _takes(one)
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.BoolType():
            return "0 or 1"
        case inspect.LiteralType(values=values):
            return " or ".join(map(str, values))
        case inspect.Metadata(extra_json_schema={"description": str(description)}):
            return description
    return "text"


def as_written(value: Any) -> str:
    """Return the value of a setting as one writes it into the environment."""
    if value is None:
        return "unset"
    return f"{value:g}" if isinstance(value, bool | float) else str(value)


def without_secrets(url: str) -> str:
    """Return the host, the database and the user of a DATABASE_URL, as key=value.

    Where only the PG* variables have them, the result says so.
    """
    given = conninfo_to_dict(url)
    # Only these parameters are shown, because libpq has several secrets, and gets new ones.
    told = ("service", "user", "host", "hostaddr", "port", "dbname")
    shown = make_conninfo("", **{key: given[key] for key in told if key in given})
    return shown or "as PG* variables say"


def is_loopback(host: str) -> bool:
    """Tell whether a name, or an address without brackets, is a loopback address."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Before 3.13 Python does not recognize a loopback address that is mapped into IPv6.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
