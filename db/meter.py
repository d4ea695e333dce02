"""A bound on what a server may send on a connection, whatever it is: a row, a cell or a message.

libpq keeps a whole row before it hands out any of it, and knows no bound: a cell may have 1 GB.
"""

import asyncio
import os
from socket import socket, socketpair

from db.connection import Connection

# Bytes that are passed on at a time.
PIECE = 65536


class Meter:
    """Stands between libpq and its socket from now on, and ends the connection past the bound.

    libpq's file descriptor becomes one end of a pair of sockets, whose other end is ours. That
    works with TLS, too: what is counted is what comes over the network.
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
        """Count from 0 again."""
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
            # They must have let go of the sockets: the next ones may have the same numbers.
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
