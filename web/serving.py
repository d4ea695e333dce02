"""Listens, runs the workers, and ends each of them in order at a signal."""

import asyncio
import errno
import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SO_REUSEPORT, SO_SNDBUF, SOL_SOCKET, socket
from time import monotonic

import uvicorn

from db.settings import SettingsError
from db.signals import SIGNALS
from web.http_connection import HttpConnection
from web.supervisor import SAME_SIGNAL, Supervisor

# Seconds without a request after which a connection is closed. Load balancers close theirs after up
# to 60. The service must not close first, because a request might be on its way just then.
KEEP_ALIVE = 75

# The most bytes of answers that the kernel keeps for a client, instead of up to 4 MB by default. It
# is enough for 2 MB a second over a line with a round trip of 100 ms.
SEND_BUFFER = 2**18

# How many connections a worker accepts in one turn of its event loop, by as many descriptors of the
# listening socket: libuv takes one from each. With one, a busy worker took 250 a second, and of
# 2,000 clients that came at once the last waited for ten seconds.
ACCEPTED = 4

# The headers of every answer. Browsers must not guess another type than the answer says. Nobody
# may keep an answer, because a row may be deleted, and the redirect of a merged id ends when the
# merge is undone.
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]

log = logging.getLogger("onerow")

# Seconds that a worker may need after its last request to close its two pools, each of which takes
# five at most.
CLOSING = 12


def serve(
    app: str,
    *,
    host: str,
    port: int,
    workers: int,
    grace: int,
    listening: Callable[[str], None],
    drain: float = 0,
    changed: Callable[[], bool] | None = None,
) -> None:
    """Serve `app`, an import string, until SIGINT, SIGTERM or SIGHUP. Tell `listening` the URL.

    For `drain` seconds after the signal the app is still served, if it calls end_in_order(). Then
    requests in flight have `grace` seconds. `changed` is called twice a second; when it returns
    True, new workers replace the old ones. Raises SettingsError if the port cannot be had.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        workers=workers,
        http=HttpConnection,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=grace,
        log_config=None,
        log_level="error",  # a lower level has a line for each request that is not HTTP
        access_log=False,
        server_header=False,
        headers=HEADERS,
        proxy_headers=False,
    )
    sockets = listening_sockets(bound(host, port), workers, config.backlog)
    alone = workers == 1 and changed is None
    if alone:
        # A signal waits for end_in_order(), because nobody would hear it until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    port = sockets[0].getsockname()[1]  # the kernel has chosen one if it was 0
    listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    accepting = [[each, *(each.dup() for _ in range(ACCEPTED - 1))] for each in sockets]
    if alone:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        uvicorn.Server(config).run(accepting[0])
    else:
        Supervisor(config, accepting, drain + grace + CLOSING, changed).run()


def bound(host: str, port: int) -> socket:
    """Return a socket bound to this address. Raises SettingsError, which names HOST or PORT."""
    sock = socket(AF_INET6 if ":" in host else AF_INET)
    # Without this, connections of a service that has just ended would keep the port for a minute.
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
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


def listening_sockets(first: socket, workers: int, backlog: int) -> list[socket]:
    """Listen with a socket for each worker, all on the address to which `first` is bound.

    The kernel shares out the connections among them. If all workers had the same socket, the one
    that wakes up first would take nearly all connections that come at once. The caller keeps the
    sockets open, so that a connection that waits for a worker that has ended is for its successor.
    """
    # Accepted connections inherit the size. This process keeps what the kernel does not, and
    # web.http_connection limits that.
    first.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)
    first.listen(backlog)
    if sys.platform != "linux":  # other systems do not share out
        return [first] * workers
    # Only now may sockets share the port, because until now another service could have joined in.
    first.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    sockets = [first]
    while len(sockets) < workers:
        sock = socket(first.family)
        sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)
        sock.bind(first.getsockname())
        sock.listen(backlog)
        sockets.append(sock)
    return sockets


def end_in_order(drain: float) -> None:
    """End this process `drain` seconds after a signal, or at once at a second signal.

    Each process calls this when it begins to serve. In the meantime is_draining() is True, so that
    load balancers send requests elsewhere. In a worker of a supervisor, the supervisor decides
    about the second signal. If the supervisor is gone, even by kill -9, the worker ends, too.
    """
    loop = asyncio.get_running_loop()
    # uvicorn's handler is a method of the server. There is no other way to reach the server.
    server: uvicorn.Server = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
    parent = multiprocessing.parent_process()
    begun = 0.0

    def end() -> None:
        server.handle_exit(signal.SIGTERM, None)

    def end_at_once() -> None:
        # uvicorn would log an error for each request that is cut short now.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for connection in list(server.server_state.connections):
            assert isinstance(connection, HttpConnection)
            connection.transport.abort()
        server.force_exit = True
        end()

    def drain_connections() -> None:
        for connection in list(server.server_state.connections):
            assert isinstance(connection, HttpConnection)
            connection.drain()

    def on_signal(*_: object) -> None:
        nonlocal begun
        if not HttpConnection.draining:
            HttpConnection.draining = True
            begun = monotonic()
            loop.call_soon_threadsafe(drain_connections)
            loop.call_soon_threadsafe(loop.call_later, drain, end)
        elif parent is None and monotonic() - begun > SAME_SIGNAL:
            loop.call_soon_threadsafe(end_at_once)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def orphaned() -> None:
        assert parent is not None
        loop.remove_reader(parent.sentinel)
        end()  # at once, because the next start needs the port

    if parent is not None:
        loop.add_reader(parent.sentinel, orphaned)


def is_draining() -> bool:
    """Tell whether this process has had a signal to end."""
    return HttpConnection.draining
