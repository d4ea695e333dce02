"""The signals that end a process, and the end of its output; how it ends in order."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The signals that end a process in order: Ctrl-C, kill's default, and the closing of the terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_on_signals(end: BaseException | None = None) -> None:
    """Make the SIGNALS raise `end`, or else SystemExit, so that `finally` blocks run.

    uvicorn raises the signal again when it has shut down. The signal's default action would then
    end the process without stopping the embedded server.
    """

    def unwind(*_: object) -> None:
        for signal_number in SIGNALS:
            signal.signal(signal_number, signal.SIG_IGN)  # a second one would cut the cleanup short
        raise end or SystemExit

    for signal_number in SIGNALS:
        signal.signal(signal_number, unwind)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Put off the SIGNALS until the block ends, so that none leaves a server half started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def output_may_end() -> Iterator[None]:
    """Exit with 1 if what the block prints cannot be written.

    A reader that has left, as `head` does, is told nothing. A disk that is full is told.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # Python flushes stdout once more at its end, and that must not raise the error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        full = f"{error.filename or 'the output'} cannot be written: {error.strerror}"
        sys.exit(1 if error.errno == errno.EPIPE else full)
