"""psql on the database of the service, for the files of sql/."""

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

# The first psql with \bind, which gives a file its parameters.
BIND = 16

HELP = r"""To run a file:             \i sql/inspect/guard_and_constraint.sql
One with parameters:       \bind {values} \i {file}
To leave:                  \q"""


def psql(url: str) -> bool:
    """Run psql, with the checkout as its working directory; return whether it ended well."""
    known = conninfo_to_dict(url)
    # Others see a process's arguments, but not its environment. For a key's password it asks.
    known.pop("sslpassword", None)
    password = {"PGPASSWORD": str(known.pop("password"))} if "password" in known else {}
    say_help()
    # Ctrl-C is psql's: it cancels a query.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with subprocess.Popen(
            [_program(), make_conninfo("", **known)], cwd=ROOT, env={**os.environ, **password}
        ) as process:
            try:
                return process.wait() == 0
            except BaseException:
                process.terminate()  # not killed, so that it leaves the terminal in order
                raise
    finally:
        signal.signal(signal.SIGINT, before)


def say_help() -> None:
    """Print how a file is run, by the lookup of a resource."""
    file, values = "FILE", "VALUE..."
    for resource in RESOURCES.values():
        select = resource.files["select"]
        file = shown(select.path)
        values = " ".join(f"'{sample(field)}'" for field in select.parameters)
    print(HELP.format(values=values, file=file), flush=True)


def _program() -> Path | str:
    """Return the user's own psql, which edits lines, if it is new enough, else the wheel's."""
    own = shutil.which("psql")
    if own is not None:
        version = subprocess.run([own, "--version"], capture_output=True, text=True).stdout
        if (found := re.search(r"\d+", version)) and int(found[0]) >= BIND:
            return own
    return BIN / "psql"
