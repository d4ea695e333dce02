"""Keeps a number of worker processes alive, and ends them all at a signal."""

import logging
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from socket import SO_ACCEPTCONN, SOL_SOCKET, socket
from threading import Event
from time import monotonic

from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Process

from db.signals import SIGNALS
from web.sockets import descriptors, share_port, sharing

# Seconds within which a repeated signal counts as the same one, passed on by make or a supervisor.
# A later one means: stop now.
SAME_SIGNAL = 1.0

# Seconds from one look at the workers and the signals to the next.
PERIOD = 0.5

# Seconds without an answer after which a worker counts as one that hangs. Less would replace the
# workers of a machine that is only busy.
HANGS = 10.0

# Seconds after which a worker that does not serve yet counts as one that hangs. On a busy machine
# it may need twenty.
STARTS = 60.0

log = logging.getLogger("onerow")


class Worker(Process):
    """A worker process, in which a thread answers whether the worker serves."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.serves = False
        self.is_ending = False  # because it had a signal that the supervisor had not
        self._limit = monotonic() + STARTS
        self.parent_conn.send(b"ping")

    def ask(self) -> None:
        """Take the worker's answer, if there is one, and only then ask again."""
        if not self.parent_conn.poll():
            return
        served, self.serves = self.serves, self.parent_conn.recv()
        self.is_ending |= served and not self.serves
        if self.serves or self.is_ending:
            self._limit = monotonic() + HANGS
        self.parent_conn.send(b"ping")

    def target(self, sockets: list[socket] | None = None) -> None:
        """Serve. This, like pong(), runs in the process of the worker."""
        _ = self.server  # is made now, because two threads that make it would make two
        super().target(sockets)

    def pong(self) -> None:
        """Answer when the event loop goes round, because one that is stuck serves nobody."""
        self.child_conn.recv()
        server = self.server
        serves = server.started and not server.should_exit
        if serves:
            gone_round = Event()
            server.servers[0].get_loop().call_soon_threadsafe(gone_round.set)
            gone_round.wait()
        self.child_conn.send(serves)

    @property
    def hangs(self) -> bool:
        """Whether the worker has not answered for too long."""
        return monotonic() > self._limit


class Supervisor:
    """Replaces workers that have ended, workers that hang, and those that serve an older folder.

    uvicorn's own supervisor gives all workers the same socket, waits for ever for a worker that
    does not end, and hears no second signal. Of workers with the same socket, the one that wakes up
    first takes nearly all connections that come at once. So each has a socket of its own here, and
    the kernel shares the connections out.
    """

    def __init__(
        self, config: Config, first: socket, limit: float, changed: Callable[[], bool] | None
    ) -> None:
        """Take a socket that listens, and the seconds from a signal to the kill."""
        self._config = config
        self._sockets = [first]
        if config.workers > 1 and sys.platform == "linux":
            share_port(first)
            # These listen once their workers serve. Until then all connections go to the first.
            self._sockets += [sharing(first) for _ in range(config.workers - 1)]
        else:  # other systems share a port, but do not share out the connections
            self._sockets *= config.workers
        self._limit = limit
        self._changed = changed
        self._workers: list[Worker] = []  # each at the index of its socket
        self._outdated: list[Worker] = []
        self._retired: list[Worker] = []  # replaced, and at their last requests
        self._signalled: list[float] = []  # when signals came, by monotonic()
        for number in SIGNALS:
            signal.signal(number, lambda *_: self._signalled.append(monotonic()))

    def run(self) -> None:
        """Return after a signal, when all workers have ended.

        Exits with uvicorn's status if a worker cannot start.
        """
        try:
            for index in range(len(self._sockets)):
                self._workers.append(self._start(index))
            while not self._signalled and not self._cannot_start():
                self._replace_ended()
                self._replace_outdated()
                # A worker that has ended before it served is not replaced at once, but at the next
                # look, because its successor may end as soon.
                wait([each.process.sentinel for each in self._workers if each.serves], PERIOD)
        finally:
            for each in self._workers:
                each.terminate()
            for sock in self._sockets:
                sock.close()  # an open one would take connections after the last worker has ended
            self._join()
        if self._cannot_start():
            sys.exit(STARTUP_FAILURE)

    def _start(self, index: int) -> Worker:
        copies = descriptors(self._sockets[index])
        worker = Worker(self._config, copies)
        worker.start()
        for copy in copies[1:]:
            copy.close()
        return worker

    def _cannot_start(self) -> bool:
        """Tell whether a worker ended with uvicorn's status for a start that failed."""
        return any(each.exitcode == STARTUP_FAILURE for each in self._workers)

    def _replace_ended(self) -> None:
        self._retired = [each for each in self._retired if each.process.is_alive()]
        for each in self._workers:
            if each.process.is_alive():
                each.ask()
        for index, each in enumerate(self._workers):
            alive = each.process.is_alive()
            if alive and not each.hangs:
                if each.is_ending:
                    self._renew_socket(index)
                continue
            each.kill()
            each.join()
            if self._cannot_start():
                return
            self._renew_socket(index)
            if alive:
                log.warning("worker %s does not answer, and was killed", each.pid)
            else:
                log.warning("worker %s ended, with exit code %s", each.pid, each.exitcode)
            try:
                self._workers[index] = self._start(index)
            except OSError as error:  # the next look is another try
                log.warning("no worker can be started: %s", error)

    def _renew_socket(self, index: int) -> None:
        """Give new connections to the other workers, until the successor of this one listens.

        The kernel would have them wait for the successor, which may never come to serve. Those that
        wait already are reset, as the kernel does with the ones that this worker has accepted.
        """
        sock = self._sockets[index]
        others = (each for each in self._workers if each is not self._workers[index])
        listens = sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN)
        if listens and self._sockets.count(sock) == 1 and any(each.serves for each in others):
            self._sockets[index] = sharing(sock)
            sock.close()

    def _replace_outdated(self) -> None:
        """Replace all workers, one after the other, when `changed` has said so."""
        if self._changed is not None and self._changed():
            log.info("a file has changed: the workers are replaced")
            self._outdated = list(self._workers)
        for each in self._outdated:
            if each in self._workers:  # else it was replaced already
                index = self._workers.index(each)
                # It shares the old one's socket, so that no connection that waits there is lost.
                successor = self._start(index)
                if not self._comes_to_serve(successor):
                    log.warning(
                        "worker %s does not come to serve: the old one stays", successor.pid
                    )
                    successor.kill()
                    successor.join()
                    return  # the next look is another try
                each.terminate()
                self._retired.append(each)
                self._workers[index] = successor
        self._outdated = []

    def _comes_to_serve(self, worker: Worker) -> bool:
        """Wait until the worker serves. Return False if it cannot, or a signal comes."""
        while not worker.serves:
            if self._signalled or not worker.process.is_alive() or worker.hangs:
                return False
            wait([worker.process.sentinel], 0.1)
            worker.ask()
        return True

    def _join(self) -> None:
        """Wait for the workers to end. Kill them after the limit, or when a second signal comes."""
        begun = monotonic()
        workers = [each.process for each in (*self._workers, *self._retired)]
        while alive := [each for each in workers if each.is_alive()]:
            again = self._signalled and self._signalled[-1] - self._signalled[0] > SAME_SIGNAL
            if again or monotonic() - begun > self._limit:
                for each in alive:
                    each.kill()
            wait([each.sentinel for each in alive], 0.1)
