"""The frontend messages of PostgreSQL's protocol, split from a stream and put together to steps.

The formats are those of PostgreSQL's documentation, "Message Formats".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

FLUSH = b"H\0\0\0\4"
SYNC = b"S\0\0\0\4"

# Requests that come in the place of a start-up message, by the number that is their version.
SSL_REQUEST, GSSENC_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102

# What has its turn outside a transaction, too: what a resource's requests send, by the names of the
# files, what a merge must not read there, and the end of a transaction that has failed. All else is
# a connection's own affair: settings, health, the list of what a merge has to look at.
CREATES = ("select", "insert", "select_many", "insert_many")
TURNS = (*CREATES, "get", "kept", "list", "delete", "surplus", "ROLLBACK")

# The settings that a transaction begins with behind a pooler. No other session could see them.
SETTINGS = "set_config"

# The first words of statements that take a snapshot. Others, such as LOCK, leave that to the next.
PLANNED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


class Messages:
    """Splits one direction of the protocol: a type, four bytes of length, the rest."""

    def __init__(self, *, startup: bool) -> None:
        self._type = 0 if startup else 1  # bytes of it; a client's first message has none
        self._rest = b""

    def split(self, data: bytes) -> Iterator[bytes]:
        """Take these bytes; yield the messages that are complete."""
        self._rest += data
        while len(self._rest) >= self._type + 4:
            size = self._type + int.from_bytes(self._rest[self._type : self._type + 4], "big")
            if len(self._rest) < size:
                break
            message, self._rest = self._rest[:size], self._rest[size:]
            self._type = 1
            yield message


@dataclass
class Step:
    """Messages of one connection that go to the server together, because it acts on them once."""

    label: str
    data: bytes
    kinds: str  # the types of those messages that the server answers, each once
    free: bool = False  # whether it goes at once, without a turn


@dataclass
class Steps:
    """Puts a connection's messages together to steps.

    A statement is a step: Parse, Bind, Describe and Execute, or a Query. But the first Parse or
    Bind in a transaction takes the snapshot, so it is a step of its own. A Sync has no turn.
    """

    names: Mapping[bytes, str]  # SQL to what a schedule calls it
    inside: bool = False  # whether a transaction has begun, by what the client has sent
    _fresh: bool = False  # whether it has no snapshot yet
    _prepared: dict[bytes, str] = field(default_factory=dict)  # the labels of statements
    _data: bytes = b""
    _kinds: str = ""
    _label: str = ""

    def take(self, message: bytes) -> Iterator[Step]:
        """Take one message; yield the step that it completes, if it does."""
        kind, body = message[:1].decode(), message[5:]
        if kind == "H":
            return  # each step has a Flush of its own
        self._data += message
        if kind in "PBDECSQ":  # the others have no answer of their own
            self._kinds += kind
        if kind == "P":
            name, sql, _ = body.split(b"\0", 2)
            self._prepared[name] = self._label = self._named(sql)
            yield from self._snapshot()
        elif kind == "B":
            self._label = self._prepared.get(body.split(b"\0", 2)[1], "?")
            yield from self._snapshot()
        elif kind == "E":
            yield self._statement(self._label)
        elif kind == "Q":
            yield self._statement(self._named(body.rstrip(b"\0")))
        elif kind not in "DC":
            yield self._step("", free=True)

    def _snapshot(self) -> Iterator[Step]:
        if self._fresh and self._label.islower():
            self._fresh = False
            yield self._step("snapshot")

    def _statement(self, label: str) -> Step:
        if label == "BEGIN":
            self.inside = self._fresh = True
        held = (self.inside or label in TURNS) and label != SETTINGS
        if label in ("COMMIT", "ROLLBACK"):
            self.inside = self._fresh = False
        return self._step(label, free=not held)

    def _step(self, label: str, *, free: bool = False) -> Step:
        step = Step(label, self._data, self._kinds, free)
        self._data, self._kinds = b"", ""
        return step

    def _named(self, sql: bytes) -> str:
        """Return the name of a file that takes a snapshot, else the first word, in capitals.

        A LOCK that keeps other writers out is told from one that does not.
        """
        found = re.match(rb"(?:\s|--[^\n]*\n)*(\w+)", sql)
        word = found[1].decode().upper() if found else "?"
        if word == "LOCK" and b"IN ROW EXCLUSIVE" not in sql:
            return "LOCK_OUT"
        return self.names.get(sql, word) if word in PLANNED else word
