"""The embedded server's data directory: whose it is, how it is made, and who works in it.

What is wrong with it is told in one line, with the name of the variable and what to do.
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

import psutil

from db.programs import (
    BIN,
    ENVIRONMENT,
    SERVER_USER,
    EmbeddedServerError,
    ProgramError,
    run,
    user_name,
)

# The server's socket is in its data directory, whatever postgresql.conf says.
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
PID_FILE = "postmaster.pid"

# The server's log, and that of the start before.
LOG = "log"
OLD_LOG = "log.old"

# The greatest process id that PostgreSQL takes: it has them in an int.
PROCESS_MAX = 2**31 - 1

# The file that makes a folder a data directory: it gets its place last.
MARK = "PG_VERSION"

# Inside the data directory, since its parent may be closed to us or on another disk: what initdb is
# making, and what it has made, until each file has its place.
UNFINISHED = ".initdb"
FINISHED = ".initdb-finished"

# Bytes of the directory's path: PostgreSQL cuts those of its files, when it makes them, at 1,023
# without a word, and then writes elsewhere.
PATH_MAX = 900

# What a new file system has in it.
LOST_AND_FOUND = "lost+found"


def refusal(data_dir: Path, why: str) -> EmbeddedServerError:
    """Return the error that ends the start, with the variable before the reason."""
    return EmbeddedServerError(f"DATA_DIR={str(data_dir)!r} {why}")


@contextmanager
def explained(data_dir: Path) -> Iterator[None]:
    """Make one line of what the system, or a program of PostgreSQL's, says about the directory."""
    try:
        yield
    except (OSError, ProgramError) as error:
        raise refusal(
            data_dir,
            f"cannot be used: {error}. It takes a folder where the server may write, on a disk with"
            " room: choose another, or set DATABASE_URL to a server that runs",
        ) from error


def located(data_dir: Path) -> Path:
    """Return the directory's real path; make it, and those above it, if nothing is there.

    Raises EmbeddedServerError and OSError.
    """
    data_dir = data_dir.absolute()
    for path in (data_dir, *data_dir.parents):
        if path.is_symlink() and not path.exists():
            # Not made: behind it may be a disk that is not mounted yet, with the data.
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
    """Look at a directory without changing anything. Raises EmbeddedServerError."""
    with explained(data_dir):
        if data_dir.exists():
            real = located(data_dir)
            if (real / MARK).exists():
                check_links(real)
                check_version(real)


def check_owner(data_dir: Path, as_user: dict[str, Any]) -> None:
    """Refuse a directory that belongs to someone else, whose permissions are not ours to change.

    Raises EmbeddedServerError.
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
    """Let the server's user pass through root's folders above the directory, not read them.

    Raises EmbeddedServerError for a folder of someone else's that is closed.
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
    """Make a data directory of an empty folder. An initdb that was cut short is done again.

    initdb holds the descriptors, too, so that a lock on one lasts until it has ended.

    Raises EmbeddedServerError, ProgramError and OSError.
    """
    finished = data_dir / FINISHED
    unfinished = data_dir / UNFINISHED
    info = data_dir.stat()
    there = {path.name for path in data_dir.iterdir()} - {LOST_AND_FOUND}
    begun = there if not info.st_mode & 0o022 else set()  # by us: others may not write there
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
        # Trusting whoever connects is safe: only the folder's owner reaches the socket in it.
        run(as_user, "initdb", "--pgdata", unfinished, "--auth=trust", "--encoding=UTF8",
            "--no-locale", "--username=postgres", pass_fds=held)  # fmt: skip
        unfinished.rename(finished)
    for path in sorted(finished.iterdir(), key=lambda path: path.name == MARK):
        path.rename(data_dir / path.name)
    finished.rmdir()


def check_version(data_dir: Path) -> None:
    """Refuse the data of another major version, which PostgreSQL cannot read.

    Raises EmbeddedServerError.
    """
    made_by = (data_dir / MARK).read_text(errors="replace").strip()
    ours = run({}, "postgres", "--version").split()[-1].split(".")[0]
    if made_by != ours:
        # Not quoted as it is: whoever may write there decides what it says, or where it leads.
        version = made_by if made_by.isdecimal() else "of an unknown version"
        raise refusal(
            data_dir,
            f"has the data of PostgreSQL {version}, and the embedded server is {ours}: move the"
            " data by pg_upgrade, or by pg_dump and psql; or choose another",
        )


def check_links(data_dir: Path) -> None:
    """Refuse a copy made of hard links: two servers would write into the same files.

    Raises EmbeddedServerError.
    """
    control = data_dir / "global" / "pg_control"
    if control.exists() and control.stat().st_nlink > 1:
        raise refusal(
            data_dir,
            "shares its files with a copy by hard links, so that one would spoil the other: copy"
            " the files (cp -a), or remove the other copy",
        )


def check_places(data_dir: Path) -> None:
    """Refuse a directory where something stands in the way of a file that the server makes.

    PostgreSQL would say that it cannot write, or wait for a pipe, and not what to do. Call this
    only if no server answers. Raises EmbeddedServerError.
    """
    for name in (PID_FILE, "postmaster.opts", f"{SOCKET}.lock", SOCKET):
        path = data_dir / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        # The server itself removes what is in its socket's place, unless it is a directory.
        if stat.S_ISDIR(mode) or (name != SOCKET and not stat.S_ISREG(mode)):
            what = "a directory" if stat.S_ISDIR(mode) else "no plain file"
            raise refusal(
                data_dir,
                f"cannot be used: {str(path)!r} is {what}, and the server makes a file of its own"
                " there: remove it",
            )


def put_log_aside(data_dir: Path) -> None:
    """Let the log begin anew: what it has been is kept until the next start. Raises OSError.

    A directory of either name, as another server's logging collector makes, has another one's logs:
    it gets a name that is free, and stays.
    """
    log, old = data_dir / LOG, data_dir / OLD_LOG
    for path in (log, old):
        if path.is_dir() and not path.is_symlink():
            names = (data_dir / f"{LOG}.{number}" for number in count(1))
            path.rename(next(name for name in names if not os.path.lexists(name)))
    with suppress(FileNotFoundError):
        log.replace(old)


def remove_stale_notes(data_dir: Path, as_user: dict[str, Any]) -> None:
    """Remove the server's notes of its process id, where that is some other process now, or none.

    PostgreSQL looks at the id alone, and would not start for as long as that process lives, nor
    ever where it is no id. In a copy of a directory it is the server of the original. Call this
    only if no server answers.
    """
    for note in (data_dir / PID_FILE, data_dir / f"{SOCKET}.lock"):
        try:
            words = note.read_bytes().split()
        except FileNotFoundError:
            continue
        # Empty or bytes of zero, as when the power failed, are no id.
        process = _process_id(words[0]) if words else None
        if process is None or not _may_work_in(process, data_dir, as_user):
            note.unlink()


def _process_id(word: bytes) -> int | None:
    """Return the id in a note of the server's, or None if it cannot be one."""
    # Negative: the process of a `postgres --single`.
    if not (found := re.fullmatch(rb"-?0*([1-9][0-9]{0,9})", word)):
        return None
    process = int(found[1])
    return process if process <= PROCESS_MAX else None


def _may_work_in(process: int, data_dir: Path, as_user: dict[str, Any]) -> bool:
    """Return whether this may be a server of the directory, which it has for its working one."""
    try:
        folder = Path(psutil.Process(process).cwd())
    except psutil.ZombieProcess:
        return False
    except psutil.NoSuchProcess:
        return True  # PostgreSQL sees that, too, and then looks for orphans of the server
    except psutil.AccessDenied:
        # As root in a container, who may not look at other users' processes; those users may.
        asked = ["readlink", f"/proc/{process}/cwd"]
        said = subprocess.run(asked, env=ENVIRONMENT, capture_output=True, **as_user)
        if said.returncode != 0:
            return True
        folder = Path(os.fsdecode(said.stdout.removesuffix(b"\n")))
    return folder.exists() and folder.samefile(data_dir)
