"""Processes, signals and the listening socket."""

import asyncio
import errno
import logging
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import wait
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SO_SNDBUF, SOL_SOCKET, socket
from time import monotonic

import uvicorn
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from db.settings import SettingsError
from web.connection import Connection

# What ends the service: Ctrl-C, a polite kill, the terminal closed.
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

# Seconds in which a signal is the first one come again: sent to all processes, and passed on by
# make or a supervisor. A later one means at once.
SAME_SIGNAL = 1.0

# Seconds without a request after which a connection is closed. Load balancers keep theirs for up to
# 60; were the service the first to close, it could do so while a request is on its way.
KEEP_ALIVE = 75

# Bytes of an answer that the kernel keeps for a client; by itself it would take up to 4 MB. Enough
# for 2 MB a second over a line that takes 100 ms there and back.
SEND_BUFFER = 2**18

# Every answer has these. No browser takes one for something else than it says, and nobody keeps
# one: a row may be gone, and the redirect of an id that was merged is over when the merge is
# undone.
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]

log = logging.getLogger("onerow")

# Seconds for closing the two pools, five each at most, when all requests are through.
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
    """Serve `app`, an import string, until SIGINT, SIGTERM or SIGHUP; tell `listening` the URL.

    `drain` is the seconds that it then still serves, where the app calls end_in_order(), and
    `grace` those that requests in flight have after it. `changed` is asked twice a second whether
    the workers are to be replaced by new ones. Raises SettingsError if the port cannot be had.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        workers=workers,
        http=Connection,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=grace,
        log_config=None,
        log_level="error",  # below it, a line for each request that is not HTTP
        access_log=False,
        server_header=False,
        headers=HEADERS,
        proxy_headers=False,
    )
    sock = bound(host, port)
    # Each connection that is accepted inherits this: what a client does not read is kept by this
    # process, which bounds it.
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)
    sock.listen(config.backlog)
    listening(f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}")
    if workers == 1 and changed is None:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        uvicorn.Server(config).run([sock])
    else:
        supervisor = Supervisor(config, [sock], drain + grace + CLOSING, changed)
        supervisor.run()


def bound(host: str, port: int) -> socket:
    """Return a socket of this address. Raises SettingsError, which names HOST or PORT."""
    sock = socket(AF_INET6 if ":" in host else AF_INET)
    # Connections of a service that has just ended may still be closing.
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except (OSError, UnicodeError) as error:  # the latter for what is no name of DNS
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


class Supervisor(Multiprocess):
    """uvicorn's, which would wait for its workers for ever, and hear nothing meanwhile."""

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: list[socket],
        limit: float,
        changed: Callable[[], bool] | None,
    ) -> None:
        super().__init__(config, sockets)
        self._limit = limit
        self._changed = changed
        self._outdated: list[Process] = []
        self._signalled: list[float] = []  # when
        # SIGHUP too: the terminal was closed. uvicorn would restart the workers, and run on unseen.
        for number in ENDING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._signalled.append(monotonic())
        self.signal_queue.append(signal.SIGTERM)

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have ended, and tell the log of each; or all, by new ones."""
        if self._changed is not None and self._changed():
            log.info("a file has changed: the workers are replaced")
            self._outdated = list(self.processes)
        if self._outdated:
            self.restart_all()
            # On a busy machine a new one may not be ready in time: then again.
            self._outdated = [each for each in self._outdated if each in self.processes]
        for each in self.processes:
            if not each.process.is_alive():
                code = each.process.exitcode
                log.warning("worker %s ended, with exit code %s", each.pid, code)
        super().keep_subprocess_alive()

    def terminate_all(self) -> None:
        """Tell the workers to end, and leave the listening socket to them."""
        super().terminate_all()
        for sock in self.sockets:
            sock.close()  # else clients could connect when nobody accepts any more

    def join_all(self) -> None:
        """Wait for the workers to end; end them after the limit, or when a signal comes again."""
        begun = monotonic()
        while alive := [each for each in self.processes if each.process.is_alive()]:
            again = self._signalled and self._signalled[-1] - self._signalled[0] > SAME_SIGNAL
            if again or monotonic() - begun > self._limit:
                for each in alive:
                    each.kill()
            wait([each.process.sentinel for each in alive], 0.1)
        super().join_all()


def end_in_order(drain: float) -> None:
    """End this process at a signal: `drain` seconds later, or at once when one comes again.

    Until then is_draining() holds, so that load balancers send their requests elsewhere. To be
    called by each process when it begins to serve. Where a supervisor started it, that is who
    decides about the second signal; and if it is gone, even by kill -9, this process ends, too.
    """
    loop = asyncio.get_running_loop()
    # uvicorn's handler, which is a method of the server that it ends.
    server: uvicorn.Server = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
    parent = multiprocessing.parent_process()
    begun = 0.0

    def end() -> None:
        server.handle_exit(signal.SIGTERM, None)

    def end_at_once() -> None:
        # What is cut short now would complain.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for connection in list(server.server_state.connections):
            assert isinstance(connection, Connection)
            connection.transport.abort()
        server.force_exit = True
        end()

    def drain_connections() -> None:
        for connection in list(server.server_state.connections):
            assert isinstance(connection, Connection)
            connection.drain()

    def on_signal(*_: object) -> None:
        nonlocal begun
        if not Connection.draining:
            Connection.draining = True
            begun = monotonic()
            loop.call_soon_threadsafe(drain_connections)
            loop.call_soon_threadsafe(loop.call_later, drain, end)
        elif parent is None and monotonic() - begun > SAME_SIGNAL:
            loop.call_soon_threadsafe(end_at_once)

    for number in ENDING:
        signal.signal(number, on_signal)

    def orphaned() -> None:
        assert parent is not None
        loop.remove_reader(parent.sentinel)
        end()  # not later: the next start could not have the port

    if parent is not None:
        loop.add_reader(parent.sentinel, orphaned)


def is_draining() -> bool:
    """Tell whether this process has been told to end."""
    return Connection.draining
