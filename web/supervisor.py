"""Keeps a worker process alive for each listening socket, and ends them all at a signal."""

import logging
import signal
import sys
from collections.abc import Callable
from itertools import chain
from math import inf
from multiprocessing.connection import wait
from socket import socket
from time import monotonic

from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Process

from db.signals import SIGNALS

# Seconds within which a repeated signal counts as the same one, passed on by make or a supervisor.
# A later one means: stop now.
SAME_SIGNAL = 1.0

# Seconds from one look at the workers and the signals to the next.
PERIOD = 0.5

# Seconds without an answer after which a worker that has once answered counts as one that hangs.
# Less would replace workers of a machine that is only busy.
HANGS = 10.0

log = logging.getLogger("onerow")


class Worker(Process):
    """A worker process. A thread of its own answers whether it serves."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.serves = False
        self._heard = inf  # it still starts, for which a busy machine may need long
        self.start()

    def hangs(self) -> bool:
        """Take what the worker has answered, ask again, and tell whether it has been too long."""
        while self.parent_conn.poll():
            self.serves = self.parent_conn.recv()
            self._heard = monotonic()
        self.parent_conn.send(b"ping")
        return monotonic() - self._heard > HANGS


class Supervisor:
    """Replaces workers that have ended, that do not answer, and that serve files from before.

    uvicorn's own supervisor gives all workers the same sockets, ends no worker that does not end
    by itself, and hears no second signal.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[list[socket]],
        limit: float,
        changed: Callable[[], bool] | None,
    ) -> None:
        """Take the sockets of each worker, and the seconds that the workers have at the end."""
        self._config = config
        self._sockets = sockets
        self._limit = limit
        self._changed = changed
        self._workers: list[Worker] = []  # each at the index of its sockets
        self._outdated: list[Worker] = []
        self._retired: list[Worker] = []  # replaced, and at their last requests
        self._signalled: list[float] = []  # when signals came, by monotonic()
        for number in SIGNALS:
            signal.signal(number, lambda *_: self._signalled.append(monotonic()))

    def run(self) -> None:
        """Return after a signal, when all workers have ended.

        Exits with uvicorn's status if a worker cannot start.
        """
        self._workers = [self._start(index) for index in range(len(self._sockets))]
        while not self._signalled and not self._cannot_start():
            self._replace_ended()
            self._replace_outdated()
            wait([each.process.sentinel for each in self._workers], PERIOD)
        for each in self._workers:
            each.terminate()
        for sock in chain(*self._sockets):
            sock.close()  # an open one would take connections after the last worker has ended
        self._join()
        if self._cannot_start():
            sys.exit(STARTUP_FAILURE)

    def _start(self, index: int) -> Worker:
        return Worker(self._config, self._sockets[index])

    def _cannot_start(self) -> bool:
        """Tell whether a worker has ended before it served, as each of its successors would."""
        return any(each.exitcode == STARTUP_FAILURE for each in self._workers)

    def _replace_ended(self) -> None:
        for index, each in enumerate(self._workers):
            if each.process.is_alive():
                if not each.hangs():
                    continue
                log.warning("worker %s does not answer: it is killed", each.pid)
            else:
                log.warning("worker %s ended, with exit code %s", each.pid, each.exitcode)
            each.kill()
            each.join()
            self._workers[index] = self._start(index)

    def _replace_outdated(self) -> None:
        """Replace all workers, one after the other, when `changed` has said so."""
        if self._changed is not None and self._changed():
            log.info("a file has changed: the workers are replaced")
            self._outdated = list(self._workers)
        for each in self._outdated:
            if each in self._workers:  # else it has ended meanwhile
                index = self._workers.index(each)
                successor = self._start(index)
                if not self._has_begun(successor):
                    successor.kill()
                    successor.join()
                    return  # a busy machine may need another try
                each.terminate()
                self._retired.append(each)
                self._workers[index] = successor
        self._outdated = []

    def _has_begun(self, worker: Worker) -> bool:
        """Wait until the worker serves. Return False if it cannot, or a signal comes."""
        while not worker.serves:
            if self._signalled or not worker.process.is_alive() or worker.hangs():
                return False
            wait([worker.process.sentinel], 0.1)
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
