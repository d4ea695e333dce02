"""The sockets that the workers listen with."""

import errno
from socket import (
    AF_INET,
    AF_INET6,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_SNDBUF,
    SOL_SOCKET,
    AddressFamily,
    socket,
)

from db.settings import SettingsError

# The most bytes of answers that the kernel keeps for a client, instead of up to 4 MB by default. It
# is enough for 2 MB a second over a line with a round trip of 100 ms.
SEND_BUFFER = 2**18

# How many connections a worker accepts in one turn of its event loop, by as many descriptors of its
# socket: libuv takes one from each. With one, a busy worker took 250 a second, and of 2,000 clients
# that came at once the last waited for ten seconds.
ACCEPTED = 4


def listening_socket(host: str, port: int, backlog: int) -> socket:
    """Return a socket that listens here. Raises SettingsError, which names HOST or PORT."""
    sock = _socket(AF_INET6 if ":" in host else AF_INET)
    try:
        sock.bind((host, port))
        sock.listen(backlog)
    except (OSError, UnicodeError) as error:  # UnicodeError is raised for an impossible DNS name
        sock.close()
        number = error.errno if isinstance(error, OSError) else None
        name = "PORT"
        if number == errno.EADDRINUSE:
            why = f"{port} is taken on {host}: stop what listens there, or set PORT to another"
        elif number == errno.EACCES:
            why = f"{port} is not for this user: set PORT to another, as one from 1024 on"
        else:
            name = "HOST"
            why = f"{host} cannot be listened on ({error}): set HOST to an address of this machine"
        raise SettingsError({name: why}) from None
    return sock


def share_port(sock: socket) -> None:
    """Let further sockets of this user listen on the same port.

    A socket that is bound without this refuses to share the port of another service.
    """
    sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)


def sharing(first: socket) -> socket:
    """Return a socket bound to the address of `first`, which shares its port.

    As soon as it listens, the kernel gives it its share of the new connections.
    """
    sock = _socket(first.family)
    share_port(sock)
    sock.bind(first.getsockname())
    return sock


def descriptors(sock: socket) -> list[socket]:
    """Return the descriptors by which a worker accepts connections, the socket's own one first."""
    return [sock, *(sock.dup() for _ in range(ACCEPTED - 1))]


def _socket(family: AddressFamily | int) -> socket:
    sock = socket(family)
    # Without this, connections of a service that has just ended would keep the port for a minute.
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    # Accepted connections inherit the size. This process keeps what the kernel does not, and
    # web.http_connection limits that.
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)
    return sock
