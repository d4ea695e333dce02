"""Opens psql on the database of the service, where the files of sql/ can be run."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.programs import BIN
from db.queries import shown
from db.resources import RESOURCES, ROOT
from db.samples import sample

# The first version of psql that has \bind, which a file with parameters needs.
BIND = 16

HELP = r"""To run a file:             \i sql/inspect/guard_and_constraint.sql
One with parameters:       \bind {values} \i {file}
To leave:                  \q"""


def psql(url: str) -> bool:
    """Run psql in the checkout's folder, and return whether it exited with 0."""
    known = conninfo_to_dict(url)
    # Other users of the machine see the arguments of a process, but not its environment. No
    # variable takes the password of a key (sslpassword), so psql asks for that.
    known.pop("sslpassword", None)
    password = {"PGPASSWORD": str(known.pop("password"))} if "password" in known else {}
    say_help()
    # Ctrl-C cancels a query in psql, and must not end this process.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with subprocess.Popen(
            [_program(), make_conninfo("", **known)], cwd=ROOT, env={**os.environ, **password}
        ) as process:
            try:
                return process.wait() == 0
            except BaseException:
                process.terminate()  # a kill would leave the terminal as psql's editor has set it
                raise
    finally:
        signal.signal(signal.SIGINT, before)


def say_help() -> None:
    """Print how to run a file in psql, with the lookup of a resource as the example."""
    file, values = "FILE", "VALUE..."
    for resource in RESOURCES.values():
        select = resource.files["select"]
        file = shown(select.path)
        values = " ".join(f"'{sample(field)}'" for field in select.parameters)
    print(HELP.format(values=values, file=file), flush=True)


def _program() -> Path | str:
    """Return the user's own psql if it is new enough, or else the wheel's, which edits no lines."""
    own = shutil.which("psql")
    if own is not None:
        version = subprocess.run([own, "--version"], capture_output=True, text=True).stdout
        if (found := re.search(r"\d+", version)) and int(found[0]) >= BIND:
            return own
    return BIN / "psql"
