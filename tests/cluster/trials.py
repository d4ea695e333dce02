"""What is done to the cluster under traffic: a row of the table each."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from time import monotonic
from typing import NamedTuple

from tests.cluster.cluster import HOSTS, Cluster, balanced
from tests.faults.scene import event_loop
from tests.faults.server import tables
from tests.faults.traffic import NAMES_AT_ONCE, Client, Traffic
from tests.faults.verdict import Verdict, doubled, lost
from tests.haproxy import HAProxy
from tests.linearizability import Call, NotLinearizable, check
from tests.service import LIMIT, sql, until

# Seconds, and the department that each asks for.
PULSE = 0.02
BEAT = "beat"

# What a service says of a former primary.
REFUSED = "another server was promoted"


class Stage(NamedTuple):
    """A trial's means."""

    cluster: Cluster
    haproxy: HAProxy
    traffic: Traffic
    share: int  # of the requests, for each of a trial's parts

    def go_on(self) -> None:
        """Wait until one more share was answered."""
        enough = self.traffic.answered + self.share
        until(lambda: self.traffic.answered >= enough)


def hosts_at_once(stage: Stage) -> None:
    for _ in range(3):
        stage.go_on()


def host_cut_off(stage: Stage) -> None:
    machine = stage.cluster.machines[0]
    stage.go_on()
    machine.cut_off()
    until(lambda: stage.haproxy.up() == HOSTS - 1)
    stage.go_on()
    machine.connect()
    until(lambda: stage.haproxy.up() == HOSTS)
    stage.go_on()


def primary_killed(stage: Stage) -> None:
    """The standby is behind when the primary dies: it must not lack what was acknowledged."""
    cluster = stage.cluster
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    stage.go_on()
    cluster.primary.host.lose_way_to(cluster.standby.host)
    # There will be one for each name. Not until the deadline: then the service cancels the wait,
    # and others see, and are told of, what is on the primary alone.
    until(lambda: len(sql(cluster.primary.url, waiting)) >= NAMES_AT_ONCE // 2)
    cluster.primary.kill()
    cluster.standby.promote()
    # Not before: the kernel would send what the dead has left.
    cluster.primary.host.find_way_to(cluster.standby.host)
    stage.go_on()
    until(lambda: stage.haproxy.up() == HOSTS)
    stage.go_on()


def former_primary_back(stage: Stage) -> None:
    """It runs again, and believes that it is the primary; connections to the other one break."""
    cluster = stage.cluster
    cluster.primary.start()
    before = cluster.primary.next_transaction()
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'onerow'"
    for _ in range(3):
        sql(cluster.standby.url, end)
        stage.go_on()
    told = [service for service in cluster.services if REFUSED in service.log.read_text()]
    assert told, "no service has tried it"
    assert cluster.primary.next_transaction() == before, "it was written to"


class Trial(NamedTuple):
    """A row of the table."""

    name: str
    run: Callable[[Stage], None]
    breaks_commits: bool = True
    ends_on_standby: bool = False


TRIALS = (
    Trial("three hosts", hosts_at_once, breaks_commits=False),
    Trial("a host cut off, and back", host_cut_off),
    Trial("primary killed, standby promoted", primary_killed, ends_on_standby=True),
    Trial("former primary back", former_primary_back, ends_on_standby=True),
)


@dataclass
class Pulse:
    """A request every PULSE seconds, whether those before it were answered or not."""

    port: int
    over: bool = False
    answered: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """Go on until `over`."""
        async with asyncio.TaskGroup() as tasks:
            while not self.over:
                tasks.create_task(self._beat())
                await asyncio.sleep(PULSE)

    async def _beat(self) -> None:
        client = Client(self.port)
        answer = await client.ask("POST", "/departments", {"name": BEAT})
        client.close()
        if answer and answer.status in (200, 201):
            self.answered.append(monotonic())

    @property
    def longest_gap(self) -> float:
        """Seconds without an answer."""
        return max(later - earlier for earlier, later in pairwise(self.answered))


def judged(trial: Trial, cluster: Cluster, requests: int, seed: str) -> tuple[Verdict, list[str]]:
    """Run the traffic, and the trial in its midst; return the row, and what else was broken."""
    with balanced(cluster.services) as haproxy, traffic_to(haproxy.port, seed) as (traffic, pulse):
        trial.run(Stage(cluster, haproxy, traffic, requests // 3))
    node = cluster.standby if trial.ends_on_standby else cluster.primary
    after = tables(node.url)
    sql(node.url, "TRUNCATE departments, employees")
    verdict = Verdict(
        trial.name,
        len(traffic.calls) + len(pulse.answered),
        len(lost(traffic.calls, set(after))),
        len(doubled(after)),
        traffic.longest,
        pulse.longest_gap,
    )
    look = Call(-1, "TABLE", None, inf, inf, 200, tuple(after))
    broken = [(-inf, inf)] if trial.breaks_commits else []
    try:
        check(
            [*traffic.calls, look],
            [row for row in after if row.name == BEAT],
            broken_commits=broken,
        )
    except NotLinearizable as error:
        return verdict, [str(error)]
    return verdict, []


@contextmanager
def traffic_to(port: int, seed: str) -> Iterator[tuple[Traffic, Pulse]]:
    """Clients at work, and a pulse beside them, until the end of the block."""
    traffic, pulse = Traffic(port, seed), Pulse(port)
    with event_loop() as start:
        going = [start(traffic.run()), start(pulse.run())]
        try:
            yield traffic, pulse
        finally:
            traffic.over = pulse.over = True
            for each in going:
                each.result(LIMIT)
