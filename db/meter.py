"""A bound on the bytes that a server may send on a connection, be they rows or a message.

libpq has no such bound, and reads a row whole before it hands out any of it. A cell may have 1 GB.
"""

import asyncio
import os
from socket import socket, socketpair

from db.connection import Connection

# Bytes that are passed on at a time, as many as a socket usually has at hand.
PIECE = 65536


class Meter:
    """Stands between libpq and the network, and ends the connection when the server sends too much.

    libpq's file descriptor becomes one end of a pair of sockets, and the meter has the other end.
    This works with TLS, too, because the meter counts the bytes as they come over the network.
    """

    def __init__(self, connection: Connection, limit: int) -> None:
        self._limit = limit
        self.renew()
        descriptor = connection.pgconn.socket
        self._server = socket(fileno=os.dup(descriptor))
        self._libpq, theirs = socketpair()
        with theirs:
            for each in (self._server, self._libpq, theirs):
                each.setblocking(False)
            os.dup2(theirs.fileno(), descriptor, inheritable=False)
        self._task = asyncio.create_task(self._pass_on())

    def renew(self) -> None:
        """Begin to count from 0 again."""
        self._left = self._limit

    @property
    def exceeded(self) -> bool:
        """Whether the server sent more than the limit, and the connection was ended."""
        return self._left < 0

    async def _pass_on(self) -> None:
        ways = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            # Both must let go of the sockets first, because new sockets may get the same numbers.
            await asyncio.gather(*ways, return_exceptions=True)
            self._server.close()
            self._libpq.close()

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._server, PIECE):
            self._left -= len(data)
            if self.exceeded:
                return
            await loop.sock_sendall(self._libpq, data)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._libpq, PIECE):
            await loop.sock_sendall(self._server, data)
