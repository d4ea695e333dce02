"""Starts HAProxy before several instances, as docs/operating.md has it but for shorter checks."""

import csv
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.service import LIMIT, until

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

# Seconds: two more than RETRY_DEADLINE's default.
TIMEOUT_SERVER = 7

CONFIGURATION = """
global
    stats socket {folder}/stats
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server {timeout}s
    timeout check 2s
listen onerow
    bind 127.0.0.1:{port}
    option httpchk GET /ready
    option redispatch
    default-server check inter 100ms fall 1
{servers}
"""


@dataclass
class HAProxy:
    """A running HAProxy."""

    port: int
    folder: Path
    pid: int = 0

    def up(self) -> int:
        """Return how many of the servers pass their checks."""
        return sum(server["status"] == "UP" for server in self._servers())

    def requests(self) -> list[int]:
        """Return how many requests each of the servers was sent."""
        return [int(server["stot"]) for server in self._servers()]

    def is_listening(self) -> bool:
        """Return whether it answers questions. Its socket is there a moment before."""
        with socket.socket(socket.AF_UNIX) as attempt:
            return attempt.connect_ex(str(self.folder / "stats")) == 0

    def _servers(self) -> list[dict[str, str]]:
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(self.folder / "stats"))
            stats.sendall(b"show stat\n")
            with stats.makefile() as answer:
                rows = list(csv.DictReader(answer))
        return [row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")]


@contextmanager
def balancing(addresses: list[str]) -> Iterator[HAProxy]:
    """Start HAProxy on a free port before these addresses; end it at the end."""
    assert HAPROXY is not None
    with TemporaryDirectory(prefix="onerow-haproxy-") as name:
        folder = Path(name)
        haproxy = HAProxy(free_port(), folder)
        servers = "\n".join(f"    server {each} {each}" for each in addresses)
        file = folder / "haproxy.cfg"
        file.write_text(
            CONFIGURATION.format(
                folder=folder, port=haproxy.port, servers=servers, timeout=TIMEOUT_SERVER
            )
        )
        with subprocess.Popen([HAPROXY, "-db", "-q", "-f", file]) as process:
            haproxy.pid = process.pid
            try:
                until(haproxy.is_listening)
                yield haproxy
            finally:
                process.terminate()
                process.wait(LIMIT)


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
