"""Runs services on machines of their own, behind HAProxy, on a primary that has a standby."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from db.schema import apply_schema
from tests.faults.cluster.network import Host, Network
from tests.faults.cluster.postgres import Node
from tests.support.haproxy import HAProxy, balancing
from tests.support.service import Service, serving, temporary_data_dir, until

HOSTS = 3

# Seconds. It is short, as in the faults, so that a request that begins with an outage ends in it.
RETRY_DEADLINE = 2.0


@dataclass
class Cluster:
    """All the machines; this process runs on the client's, which is HAProxy's, too."""

    network: Network
    primary: Node
    other: Node  # the standby, or a former primary
    database: str  # the URL that names both servers
    _stack: ExitStack
    services: list[Service] = field(default_factory=list)
    machines: list[Host] = field(default_factory=list)  # the machines of the services

    def fail_over(self) -> None:
        """Promote the standby."""
        self.other.promote()
        self.primary, self.other = self.other, self.primary

    def serve(self) -> None:
        """Start the service on one more machine."""
        self.services.append(self._stack.enter_context(self.serving(self.database)))
        self.machines.append(self.network.hosts[-1])

    @contextmanager
    def serving(self, database: str, **settings: str) -> Iterator[Service]:
        """Start the service on a machine, which is the last one, until the end of the block."""
        machine = self.network.host()
        with serving(
            *machine.command(sys.executable, "app.py"),
            HOST=machine.address,
            ALLOW_ANONYMOUS="1",  # nobody else can reach this network
            DATABASE_URL=database,
            RETRY_DEADLINE=str(RETRY_DEADLINE),
            **settings,
        ) as service:
            service.await_ready()
            yield service


@contextmanager
def cluster(network: Network) -> Iterator[Cluster]:
    """Start both servers; the second is no standby yet."""
    with ExitStack() as stack:
        nodes = [Node(network.host(), stack.enter_context(temporary_data_dir())) for _ in range(2)]
        primary, other = nodes
        for node in nodes:
            stack.callback(node.stop)
        primary.create()
        primary.start()
        apply_schema(primary.url)
        addresses = ",".join(node.host.address for node in nodes)
        database = f"postgresql://postgres@{addresses}/postgres?target_session_attrs=read-write"
        with ExitStack() as services:
            yield Cluster(network, primary, other, database, services)


@contextmanager
def balanced(services: list[Service]) -> Iterator[HAProxy]:
    """Start HAProxy before these machines."""
    with balancing([service.url.removeprefix("http://") for service in services]) as haproxy:
        until(lambda: haproxy.up() == len(services))
        yield haproxy
