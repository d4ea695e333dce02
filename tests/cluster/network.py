"""Machines: network namespaces at one switch, which leads nowhere else."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.server import Skipped

SWITCH = "switch"
NETWORK = "10.77.0"


@dataclass
class Host:
    """A machine."""

    namespace: str
    address: str
    _port: str  # of the switch

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
        host = Host(f"onerow-{os.getpid()}-{number}", f"{NETWORK}.{number}", f"port{number}")
        ip("netns", "add", host.namespace)
        self.hosts.append(host)
        ip("link", "add", host._port, "type", "veth", "peer", "eth0", "netns", host.namespace)
        ip("link", "set", host._port, "master", SWITCH)
        host.connect()
        ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", host.namespace, "link", "set", device, "up")
        return host


@contextmanager
def network() -> Iterator[Network]:
    """Make a switch, to which this process is connected, too.

    Raises Skipped unless this process is in a namespace of its own, as by `unshare --net`.
    """
    mine, parents = (
        Path(f"/proc/{each}/ns/net").readlink() for each in (os.getpid(), os.getppid())
    )
    if mine == parents:
        raise Skipped("not in a network namespace of its own: use `make cluster`, as root")
    ip("link", "set", "lo", "up")
    ip("link", "add", SWITCH, "type", "bridge")
    ip("address", "add", f"{NETWORK}.1/24", "dev", SWITCH)
    ip("link", "set", SWITCH, "up")
    made = Network()
    try:
        yield made
    finally:
        for host in made.hosts:
            ip("netns", "delete", host.namespace)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
