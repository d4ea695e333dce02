"""One connection through the gate: its steps, one at a time, and what breaks it."""

import asyncio
import socket
import struct
from asyncio import StreamWriter
from collections import deque
from typing import TYPE_CHECKING

from db.prove.messages import FLUSH, Step, Steps

if TYPE_CHECKING:
    from db.prove.gate import Gate

# SO_LINGER on, for 0 seconds: close() resets the connection instead of ending it in order.
RESET = struct.pack("ii", 1, 0)

# Which answers of the server end its work on a message of the client's, by the message's type.
# Describe is answered by the columns or by NoData, Execute by its tag, as for an empty statement.
ENDED_BY = {"P": "1", "B": "2", "D": "Tn", "E": "CIs", "C": "3", "S": "Z", "Q": "Z"}

# Stands for the passing on of an answer that was held back.
HELD_BACK = Step("answer", b"", "")


class Line:
    """One connection of a client, and the one to the server behind it."""

    def __init__(self, gate: "Gate", client: StreamWriter, server: StreamWriter) -> None:
        self.pid = 0  # of the backend, as the server says
        self.steps = Steps(gate.names)
        self.queue: deque[Step] = deque()  # what the client has sent and the server has not
        self.owed = ""  # the types of the messages that the server has still to answer
        self.idle = True  # whether the server is outside a transaction
        self.ended = 0  # how many transactions have ended, as far as the client knows
        self.open = True
        self.fate = ""  # what becomes of the next answer: "", "held" or "cut"
        self.dead = False  # whether the server has ended it, and the client is not told yet
        self.told = asyncio.Event()  # whether the client is told of such an end
        self.told.set()
        self._gate = gate
        self._client, self._server = client, server
        self._failed = False  # whether the server passes over everything up to Sync
        self._kept: list[bytes] = []  # answers that are held back

    @property
    def waits(self) -> Step | None:
        """The step that waits for its turn."""
        if self.owed or self.dead or not self.open:
            return None
        if self._kept:
            return HELD_BACK
        return self.queue[0] if self.queue else None

    @property
    def client_port(self) -> int:
        """The port of the client's end."""
        return int(self._client.get_extra_info("peername")[1])

    def let_through(self) -> None:
        """Send the step whose turn it is, or pass on the answer that was held back."""
        if self._kept:
            self.fate = ""
            self._client.write(b"".join(self._kept))
            self._kept.clear()
            self.ended += self.idle
            self.go_on()
        else:
            self._send(self.queue.popleft())

    def cut(self) -> None:
        """Reset the client's side; the server reads what it was sent, and then the end."""
        self.open = False
        self.told.set()
        self._gate.ending.append(self)
        sock = self._client.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._client.transport.abort()
        self._server.close()

    async def server_ended(self) -> None:
        """Wait until the client may be told."""
        self.owed, self.dead = "", True
        self._gate.changed.set()
        await self.told.wait()

    def sent(self, message: bytes) -> None:
        """Take a message of the client's."""
        self.queue += self.steps.take(message)
        self.go_on()

    def answered(self, message: bytes) -> None:
        """Take a message of the server's."""
        kind = message[:1].decode()
        if kind == "K":
            self.pid = int.from_bytes(message[5:9], "big")
        elif kind == "Z":
            self.idle = message[5:6] == b"I"
            self.ended += self.idle and not self.fate
            self._failed = False
            self.owed = ""
        elif kind == "E" and self.owed[:1] not in ("Q", "S", ""):
            self.owed = ""
            self._failed = True
        elif self.owed and kind in ENDED_BY[self.owed[0]] and self.owed[0] not in "QS":
            self.owed = self.owed[1:]
        if self.fate or not self.told.is_set():  # a server that is killed may say so
            self._kept.append(message)
        else:
            self._client.write(message)
        if self.fate == "cut" and not self.owed:
            self.cut()
        self.go_on()

    def go_on(self) -> None:
        """Send, or pass on, what needs no turn."""
        if self._kept and self._gate.is_open and not (self.owed or self.dead):
            self.let_through()
        while self.queue and not self.owed and not self._kept:
            step = self.queue[0]
            if self._failed and step.kinds != "S":
                self.queue.popleft()  # PostgreSQL would pass over it
            elif step.free or self._gate.is_open:
                self.let_through()
            else:
                break
        self._gate.changed.set()

    def _send(self, step: Step) -> None:
        self.owed += step.kinds
        # PostgreSQL keeps its answers back until Flush or Sync.
        self._server.write(step.data if step.kinds in ("", "S", "Q") else step.data + FLUSH)
