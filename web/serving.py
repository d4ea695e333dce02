"""Listens, runs the workers, and ends each of them in order at a signal."""

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable
from time import monotonic

import uvicorn

from db.signals import SIGNALS
from web.http_connection import HttpConnection
from web.sockets import descriptors, listening_socket
from web.supervisor import SAME_SIGNAL, Supervisor

# Seconds without a request after which a connection is closed. Load balancers close theirs after up
# to 60. The service must not close first, because a request might be on its way just then.
KEEP_ALIVE = 75

# The headers of every answer. Browsers must not guess another type than the answer says. Nobody
# may keep an answer, because a row may be deleted, and the redirect of a merged id ends when the
# merge is undone.
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]

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

    The app must call end_in_order() when it begins to serve. It is served for `drain` seconds after
    the signal; then requests in flight have `grace` seconds. `changed` is called twice a second;
    when it returns True, new workers replace the old ones. Raises SettingsError if the port cannot
    be had.
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
    sock = listening_socket(host, port, config.backlog)
    alone = workers == 1 and changed is None
    if alone:
        # A signal waits for end_in_order(), because nobody would hear it until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    port = sock.getsockname()[1]  # the kernel has chosen one if it was 0
    listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    if alone:
        uvicorn.Server(config).run(descriptors(sock))
    else:
        Supervisor(config, sock, drain + grace + CLOSING, changed).run()


def end_in_order(drain: float) -> None:
    """End this process `drain` seconds after a signal, or at once at a second signal.

    Each process calls this when it begins to serve. In the meantime HttpConnection.draining is
    True, so that load balancers send requests elsewhere. In a worker of a supervisor, the
    supervisor decides about the second signal. If the supervisor is gone, even by kill -9, the
    worker ends, too.
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
