"""The embedded server's data directory: its owner, how it is made, and which process uses it.

Each error is one line with the name of the variable, what is wrong, and what to do.
"""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from db.programs import (
    BIN,
    ENVIRONMENT,
    SERVER_USER,
    EmbeddedServerError,
    ProgramError,
    run,
    user_name,
)

# The server is started with its socket in the data directory and with this port, which is in the
# socket's name, whatever postgresql.conf says.
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
PID_FILE = "postmaster.pid"

# The server's log, and the log of the start before.
LOG = "log"
OLD_LOG = "log.old"

# The greatest process id that PostgreSQL reads from its files, as a C int.
PROCESS_MAX = 2**31 - 1

# A folder with this file is a data directory. create() moves it to its place last.
MARK = "PG_VERSION"

# The folder in which initdb works, and its name when initdb is through, until create() has moved
# each file to its place. It is inside the data directory, because the parent may be closed to us,
# or on another disk.
UNFINISHED = ".initdb"
FINISHED = ".initdb-finished"

# The longest path of the directory, in bytes. PostgreSQL silently cuts the paths of files that it
# makes at 1,023 bytes, and would then write to other places.
PATH_MAX = 900

# A folder that a new file system has, so that it counts as empty.
LOST_AND_FOUND = "lost+found"


def refusal(data_dir: Path, why: str) -> EmbeddedServerError:
    """Return the error that ends the start: the variable, its value and the reason."""
    return EmbeddedServerError(f"DATA_DIR={str(data_dir)!r} {why}")


@contextmanager
def explained(data_dir: Path) -> Iterator[None]:
    """Turn OSError and ProgramError into EmbeddedServerError, which says what to do."""
    try:
        yield
    except (OSError, ProgramError) as error:
        raise refusal(
            data_dir,
            f"cannot be used: {error}. It takes a folder where the server may write, on a disk with"
            " room: choose another, or set DATABASE_URL to a server that runs",
        ) from error


def located(data_dir: Path) -> Path:
    """Return the directory's real path. If nothing is there, make it, and the folders above it.

    Raises EmbeddedServerError or OSError.
    """
    data_dir = data_dir.absolute()
    for path in (data_dir, *data_dir.parents):
        if path.is_symlink() and not path.exists():
            # The folder is not made where the link leads: the data may be on a disk that is not
            # mounted yet.
            raise refusal(
                data_dir,
                f"leads through {str(path)!r}, a link to {str(path.readlink())!r}, which is not"
                " there: mount or make that, or choose another",
            )
    real = Path(os.path.realpath(data_dir))
    if "\n" in str(real):
        raise refusal(
            data_dir,
            "has a line break in its path, which PostgreSQL's own files cannot hold: choose"
            " another, without one",
        )
    if len(os.fsencode(real)) > PATH_MAX:
        raise refusal(
            data_dir,
            f"is longer than the {PATH_MAX} bytes that leave room for PostgreSQL's files:"
            " choose another",
        )
    if real.exists() and not real.is_dir():
        raise refusal(data_dir, "is a file, not a folder: choose another")
    real.mkdir(mode=0o700, parents=True, exist_ok=True)
    return real


def check_existing(data_dir: Path) -> None:
    """Check a directory that may be there, and change nothing. Raises EmbeddedServerError."""
    with explained(data_dir):
        if data_dir.exists():
            real = located(data_dir)
            if (real / MARK).exists():
                check_links(real)
                check_version(real)


def check_owner(data_dir: Path, as_user: dict[str, Any]) -> None:
    """Raise EmbeddedServerError if the directory belongs to another user.

    `as_user` is that of server_user(). A folder of root's that is no data directory yet passes,
    because create() gives it to the server's user.
    """
    user = as_user.get("user", os.geteuid())
    owner = data_dir.stat().st_uid
    may_be_taken = owner == os.geteuid() and not (data_dir / MARK).exists()
    if owner != user and not may_be_taken:
        theirs, ours = user_name(owner), user_name(user)
        raise refusal(
            data_dir,
            f"belongs to the user {theirs}, and the server would run as {ours}: start this as"
            f" {theirs}, choose another, or chown -R it to {ours}",
        )


def let_through(data_dir: Path, as_user: dict[str, Any]) -> None:
    """Let the server's user pass through, but not read, root's folders above the directory.

    Raises EmbeddedServerError for a closed folder that belongs to another user than root.
    """
    if not as_user:
        return
    for path in (data_dir, BIN):
        for parent in path.parents:
            info = parent.stat()
            if info.st_mode & 0o001 or info.st_uid == as_user["user"]:
                continue
            if info.st_uid != os.geteuid():
                raise refusal(
                    data_dir,
                    f"cannot be used: {str(parent)!r} belongs to {user_name(info.st_uid)} and is"
                    f" closed to {SERVER_USER}, as whom root's server runs: chmod o+x that,"
                    f" {'choose another' if path is data_dir else 'move this checkout'}, or start"
                    " this as another user than root",
                )
            parent.chmod(stat.S_IMODE(info.st_mode) | 0o001)


def create(data_dir: Path, as_user: dict[str, Any], *held: int) -> None:
    """Make an empty folder a data directory. If an initdb was interrupted there, run it again.

    initdb inherits the descriptors `held`, so that a lock on one lasts until initdb has ended, even
    if this process is killed.

    Raises EmbeddedServerError, ProgramError or OSError.
    """
    finished = data_dir / FINISHED
    unfinished = data_dir / UNFINISHED
    info = data_dir.stat()
    there = {path.name for path in data_dir.iterdir()} - {LOST_AND_FOUND}
    # If other users may write here, they may have put the names there, and nothing counts as ours.
    begun = there if not info.st_mode & 0o022 else set()
    if FINISHED not in begun:
        if strange := there - (begun & {UNFINISHED}):
            raise refusal(
                data_dir,
                f"is not a data directory, and {str(min(strange))!r} in it is in the way: choose"
                " another, or an empty folder",
            )
        if info.st_mode & stat.S_ISVTX and not data_dir.is_mount():
            raise refusal(data_dir, "is a folder that all users share: choose one inside it")
        if as_user:
            os.chown(data_dir, as_user["user"], as_user["group"])
        data_dir.chmod(0o700)
        if unfinished.exists():
            shutil.rmtree(unfinished)
        # Trust for every connection is safe, because only the folder's owner reaches the socket.
        run(as_user, "initdb", "--pgdata", unfinished, "--auth=trust", "--encoding=UTF8",
            "--no-locale", "--username=postgres", pass_fds=held)  # fmt: skip
        unfinished.rename(finished)
    for path in sorted(finished.iterdir(), key=lambda path: path.name == MARK):
        path.rename(data_dir / path.name)
    finished.rmdir()


def check_version(data_dir: Path) -> None:
    """Raise EmbeddedServerError for data of another major version, which PostgreSQL cannot read."""
    made_by = (data_dir / MARK).read_text(errors="replace").strip()
    ours = run({}, "postgres", "--version").split()[-1].split(".")[0]
    if made_by != ours:
        # Only a number is quoted: another user who may write there could have put anything into the
        # file, or a link to a secret.
        version = made_by if made_by.isdecimal() else "of an unknown version"
        raise refusal(
            data_dir,
            f"has the data of PostgreSQL {version}, and the embedded server is {ours}: move the"
            " data by pg_upgrade, or by pg_dump and psql; or choose another",
        )


def check_links(data_dir: Path) -> None:
    """Raise EmbeddedServerError for a copy made of hard links.

    The servers of the copy and of the original would write into the same files.
    """
    control = data_dir / "global" / "pg_control"
    if control.exists() and control.stat().st_nlink > 1:
        raise refusal(
            data_dir,
            "shares its files with a copy by hard links, so that one would spoil the other: copy"
            " the files (cp -a), or remove the other copy",
        )


def check_places(data_dir: Path) -> None:
    """Raise EmbeddedServerError if something is in the place of a file that the server makes.

    PostgreSQL itself would only say that it cannot write, or wait for ever if it is a pipe. Call
    this only if no server answers.
    """
    for name in (PID_FILE, "postmaster.opts", f"{SOCKET}.lock", SOCKET):
        path = data_dir / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        # The server itself removes anything but a directory from the place of its socket.
        if stat.S_ISDIR(mode) or (name != SOCKET and not stat.S_ISREG(mode)):
            what = "a directory" if stat.S_ISDIR(mode) else "no plain file"
            raise refusal(
                data_dir,
                f"cannot be used: {str(path)!r} is {what}, and the server makes a file of its own"
                " there: remove it",
            )


def put_log_aside(data_dir: Path) -> None:
    """Let the log begin anew, and keep the old one until the next start. Raises OSError.

    A folder of either name holds logs of a server with a logging collector. It gets a free name and
    stays.
    """
    log, old = data_dir / LOG, data_dir / OLD_LOG
    for path in (log, old):
        if path.is_dir() and not path.is_symlink():
            names = (data_dir / f"{LOG}.{number}" for number in count(1))
            path.rename(next(name for name in names if not os.path.lexists(name)))
    with suppress(FileNotFoundError):
        log.replace(old)


def remove_stale_notes(data_dir: Path, as_user: dict[str, Any]) -> None:
    """Remove files with a server's process id if that process is no server of this directory.

    PostgreSQL only asks whether a process with this id runs. So it would not start while some
    other process has the id, such as the original's server in a copy of the directory, and would
    never start where the file has no id. Call this only if no server answers.
    """
    for note in (data_dir / PID_FILE, data_dir / f"{SOCKET}.lock"):
        try:
            words = note.read_bytes().split()
        except FileNotFoundError:
            continue
        # After a power failure the file may be empty, or have only zero bytes.
        process = _process_id(words[0]) if words else None
        if process is None or not _may_work_in(process, data_dir, as_user):
            note.unlink()


def _process_id(word: bytes) -> int | None:
    """Return the process id in the first word of such a file, or None if there is none."""
    # `postgres --single` writes its id as a negative number.
    if not (found := re.fullmatch(rb"-?0*([1-9][0-9]{0,9})", word)):
        return None
    process = int(found[1])
    return process if process <= PROCESS_MAX else None


def _may_work_in(process: int, data_dir: Path, as_user: dict[str, Any]) -> bool:
    """Return whether a process may be a server of the directory, by its working folder."""
    import psutil  # here, because few starts need it, and the others are faster without it

    try:
        folder = Path(psutil.Process(process).cwd())
    except psutil.ZombieProcess:
        return False
    except psutil.NoSuchProcess:
        return True  # PostgreSQL sees that, too, and then looks for children of the dead server
    except psutil.AccessDenied:
        # In a container root may not look at other users' processes, but the server's user may.
        asked = ["readlink", f"/proc/{process}/cwd"]
        said = subprocess.run(asked, env=ENVIRONMENT, capture_output=True, **as_user)
        if said.returncode != 0:
            return True
        folder = Path(os.fsdecode(said.stdout.removesuffix(b"\n")))
    return folder.exists() and folder.samefile(data_dir)
