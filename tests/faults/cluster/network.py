"""Makes machines of network namespaces, at one switch, which leads nowhere else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

SWITCH = "switch"
NETWORK = "10.77.0"

UNSHARE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass
class Host:
    """A machine."""

    namespace: str
    address: str
    _port: str  # the end of the cable at the switch

    def command(self, *command: object) -> list[str]:
        """Return what runs a command there."""
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    def cut_off(self) -> None:
        """Take the cable out."""
        ip("link", "set", self._port, "down")

    def connect(self) -> None:
        """Put it in again."""
        ip("link", "set", self._port, "up")

    def lose_way_to(self, other: "Host") -> None:
        ip("-n", self.namespace, "route", "add", "blackhole", other.address)

    def find_way_to(self, other: "Host") -> None:
        ip("-n", self.namespace, "route", "delete", "blackhole", other.address)


@dataclass
class Network:
    """The switch."""

    _numbers: Iterator[int] = field(default_factory=lambda: count(11))
    hosts: list[Host] = field(default_factory=list)

    def host(self) -> Host:
        """Add a machine."""
        number = next(self._numbers)
        host = Host(f"onerow-{number}", f"{NETWORK}.{number}", f"port{number}")
        ip("netns", "add", host.namespace)
        self.hosts.append(host)
        ip("link", "add", host._port, "type", "veth", "peer", "eth0", "netns", host.namespace)
        ip("link", "set", host._port, "master", SWITCH)
        host.connect()
        ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", host.namespace, "link", "set", device, "up")
        return host


def alone_in_namespaces() -> None:
    """Begin this program again as the first process in namespaces of its own, unless it is one.

    Only root may do this; for others the program ends and says so. unshare does not pass SIGTERM
    on, so that only Ctrl-C or SIGKILL ends the program.
    """
    if os.getpid() != 1:
        os.execvp(UNSHARE[0], [*UNSHARE, *sys.orig_argv])


def network() -> Network:
    """Make a switch, to which this process is connected, too.

    The switch, and the processes of its machines, end with this process, which must have been
    started by alone_in_namespaces().
    """
    names = Path("/run/netns")
    names.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", names], check=True)
    ip("link", "set", "lo", "up")
    ip("link", "add", SWITCH, "type", "bridge")
    ip("address", "add", f"{NETWORK}.1/24", "dev", SWITCH)
    ip("link", "set", SWITCH, "up")
    return Network()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
