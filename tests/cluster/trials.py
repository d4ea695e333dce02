"""What is done to the cluster under traffic: a row of the table each."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from math import inf
from time import monotonic
from typing import NamedTuple

import msgspec

from tests.cluster.cluster import HOSTS, RETRY_DEADLINE, Cluster, balanced
from tests.cluster.postgres import Node
from tests.faults.scene import event_loop
from tests.faults.server import tables
from tests.faults.traffic import NAMES_AT_ONCE, Client, Traffic
from tests.faults.verdict import READY, Verdict, doubled, lost
from tests.haproxy import HAProxy
from tests.linearizability import Call, NotLinearizable, check, history
from tests.service import LIMIT, sql, until

# Seconds, and the department that each asks for.
PULSE = 0.02
BEAT = "beat"

# The services' to a server, at once.
END_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'onerow'"
)

# What a service says of a former primary.
REFUSED = "another server was promoted"


@dataclass
class Stage:
    """A trial's means."""

    cluster: Cluster
    haproxy: HAProxy
    traffic: Traffic
    share: int  # of the requests, for each of a trial's parts
    disturbed: list[tuple[float, float]] = field(default_factory=list)  # from when to when

    def go_on(self) -> None:
        """Wait until one more share was answered."""
        enough = self.traffic.answered + self.share
        until(lambda: self.traffic.answered >= enough)

    @contextmanager
    def disturbing(self) -> Iterator[None]:
        """Here connections may break, and callers be refused, until all hosts are up again."""
        began = monotonic()
        yield
        until(lambda: self.haproxy.up() == HOSTS)
        self.disturbed.append((began, monotonic() + READY))


def hosts_at_once(stage: Stage) -> None:
    for _ in range(3):
        stage.go_on()


def host_cut_off(stage: Stage) -> None:
    machine = stage.cluster.machines[0]
    stage.go_on()
    with stage.disturbing():
        machine.cut_off()
        until(lambda: stage.haproxy.up() == HOSTS - 1)
        stage.go_on()
        machine.connect()
    stage.go_on()


def failover(stage: Stage, lose: Callable[[Node], None]) -> None:
    """The standby is behind when the primary is lost: it must not lack what was acknowledged."""
    cluster = stage.cluster
    primary = cluster.primary
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    stage.go_on()
    with stage.disturbing():
        began = monotonic()
        primary.host.lose_way_to(cluster.other.host)
        # There will be one for each name.
        until(lambda: len(sql(primary.url, waiting)) >= NAMES_AT_ONCE // 2)
        lose(primary)
        # Later the service cancels the wait, and what is on the primary alone is told to others.
        assert monotonic() - began < RETRY_DEADLINE, "too late for this trial"
        cluster.fail_over()
        stage.go_on()
    stage.go_on()


def former_primary_back(stage: Stage, find: Callable[[Node], None]) -> None:
    """It believes that it is the primary, and connections to the other one break; then it rejoins.

    Its sessions are as it left them, if it was its machine that was gone.
    """
    cluster = stage.cluster
    former = cluster.other
    former.host.find_way_to(cluster.primary.host)  # of which nothing is there any more
    find(former)
    before = former.next_transaction()
    for _ in range(3):
        with stage.disturbing():
            sql(cluster.primary.url, END_CONNECTIONS)
            stage.go_on()
    told = [service for service in cluster.services if REFUSED in service.log.read_text()]
    assert told, "no service has tried it"
    assert former.next_transaction() == before, "it was written to"
    former.rejoin(cluster.primary)
    stage.go_on()


def machine_gone(node: Node) -> None:
    node.host.cut_off()


def machine_back(node: Node) -> None:
    node.host.connect()


def failover_to_asynchronous_standby(stage: Stage) -> None:
    """The negative control, which must lose what was acknowledged."""
    cluster = stage.cluster
    primary = cluster.primary
    primary.wait_for("async")
    with stage.disturbing():
        primary.host.lose_way_to(cluster.other.host)
        stage.go_on()
        primary.kill()
        cluster.fail_over()
    stage.go_on()


class Trial(NamedTuple):
    """A row of the table."""

    name: str
    run: Callable[[Stage], None]


TRIALS = (
    Trial("three hosts", hosts_at_once),
    Trial("a host cut off, and back", host_cut_off),
    Trial("primary killed, standby promoted", partial(failover, lose=Node.kill)),
    Trial("former primary back, and rejoins", partial(former_primary_back, find=Node.start)),
    Trial("primary's machine gone, standby promoted", partial(failover, lose=machine_gone)),
    Trial("the machine back, and rejoins", partial(former_primary_back, find=machine_back)),
)

CONTROL = Trial("control: asynchronous standby promoted", failover_to_asynchronous_standby)


@dataclass
class Pulse:
    """A request every PULSE seconds, whether those before it were answered or not."""

    port: int
    over: bool = False
    answered: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # the id that each answer told
    created: int = 0

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
            self.rows.append(msgspec.json.decode(answer.body)["id"])
            self.created += answer.status == 201

    @property
    def longest_gap(self) -> float:
        """Seconds without an answer."""
        return max(later - earlier for earlier, later in pairwise(self.answered))

    def told_more_than(self, rows: set[int]) -> Iterator[str]:
        """Say which answers were about none of these rows, or told of it as new once more."""
        if missing := set(self.rows) - rows:
            yield f"lost: {BEAT} {sorted(missing)}"
        if self.created > 1:
            yield f"{self.created} answers say that they made {BEAT}"


def judged(trial: Trial, cluster: Cluster, requests: int, seed: str) -> tuple[Verdict, list[str]]:
    """Run the traffic, and the trial in its midst; return the row, and what else was broken."""
    with balanced(cluster.services) as haproxy, traffic_to(haproxy.port, seed) as (traffic, pulse):
        stage = Stage(cluster, haproxy, traffic, requests // 3)
        trial.run(stage)
    after = tables(cluster.primary.url)
    sql(cluster.primary.url, "TRUNCATE departments, employees")
    beats = [row for row in after if row.name == BEAT]
    missing = lost(traffic.calls, set(after))
    more = list(pulse.told_more_than({row.id for row in beats}))
    verdict = Verdict(
        trial.name,
        len(traffic.calls) + len(pulse.answered),
        len(missing) + len(more),
        len(doubled(after)),
        traffic.longest,
        pulse.longest_gap,
    )
    broken = [*missing, *more, *doubled(after)]
    look = Call(-1, "TABLE", None, inf, inf, 200, tuple(after))
    try:
        check([*traffic.calls, look], beats, broken_commits=stage.disturbed)
    except NotLinearizable as error:
        broken.append(str(error))
    in_vain = [call for call in traffic.calls if not call.answered]
    for began, ended in stage.disturbed:
        in_vain = [call for call in in_vain if call.end < began or call.start > ended]
    if in_vain:
        broken.append(f"in vain, and needlessly:\n{history(in_vain)}")
    return verdict, broken


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
