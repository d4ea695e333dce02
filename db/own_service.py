"""A service that a command starts for itself, on a port of this machine, and ends."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable

from db.way_out.change import Refused

# The settings of such a service. Nobody else uses it, and one caller keeps one worker busy. An
# empty variable counts as unset.
SETTINGS = {
    "HOST": "127.0.0.1",
    "PORT": "0",
    "WORKERS": "1",
    **dict.fromkeys(("API_TOKEN", "ALLOWED_HOSTS", "RELOAD", "LOG_REQUESTS", "DRAIN_SECONDS"), ""),
}

# By this option of prctl(2) a process asks Linux for a signal when its parent ends.
PR_SET_PDEATHSIG = 1


def environment(url: str, **settings: str) -> dict[str, str]:
    """Return the service's environment on a database, with further settings."""
    inherited = dict(os.environ)
    inherited.pop("WORKERS_FOLDER", None)  # the folder of another service
    return {**inherited, **SETTINGS, "DATABASE_URL": url, **settings}


def end_with_parent() -> None:
    """On Linux, end this process with its parent, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def port_in(line: str, log: Callable[[], str]) -> int:
    """Return the port that the service's first line names.

    Raises Refused, with the service's log, if there is no such line, because it did not start.
    """
    address = re.search(r"http://[\d.]+:(\d+)", line)
    if address is None:
        raise Refused(f"the service does not start: {log().strip()}")
    return int(address[1])
