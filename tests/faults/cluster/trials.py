"""What is done to the cluster under traffic. Each trial is a row of the table."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from math import inf
from time import monotonic
from typing import NamedTuple

from tests.faults.cluster.cluster import HOSTS, RETRY_DEADLINE, Cluster, balanced
from tests.faults.cluster.postgres import Node
from tests.faults.scene import event_loop
from tests.faults.server import tables
from tests.faults.traffic import Client, Traffic, ended, http
from tests.faults.verdict import LATE, READY, Verdict, doubled, lost
from tests.proof.linearizability import Call, Key, NotLinearizable, check, history
from tests.support.haproxy import TIMEOUT_SERVER, HAProxy
from tests.support.service import LIMIT, sql, until

# Seconds.
PULSE = 0.02

# The services' to a server, at once.
END_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'onerow'"
)

# So many commits must be missing at the standby. More may never come, for a request that creates on
# the same page of an index as one that waits conflicts with it, and begins again.
UNREPLICATED = 4

# A service logs this of a former primary.
REFUSED = "another server was promoted"


@dataclass
class Stage:
    """The cluster and its traffic, and what a trial does with them."""

    cluster: Cluster
    haproxy: HAProxy
    traffic: Traffic
    going: list[Future[None]]  # one is done when the traffic or the pulse has ended
    share: int  # how many requests each part of a trial sees
    disturbed: list[tuple[float, float]] = field(default_factory=list)  # each from and to

    def go_on(self) -> None:
        """Wait until one more share was answered."""
        enough = self.traffic.answered + self.share
        self.wait(lambda: self.traffic.answered >= enough)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. Raises what has ended the traffic meanwhile."""
        until(lambda: any(each.done() for each in self.going) or condition())
        for each in self.going:
            if each.done():
                each.result()

    @contextmanager
    def disturbing(self) -> Iterator[None]:
        """Allow for connections that break and callers that fail, until all hosts are up again."""
        began = monotonic()
        yield
        self.wait(lambda: self.haproxy.up() == HOSTS)
        self.disturbed.append((began, monotonic() + READY))


def hosts_at_once(stage: Stage) -> None:
    for _ in range(3):
        stage.go_on()
    assert all(stage.haproxy.requests()), "a host was sent nothing"


def host_cut_off(stage: Stage) -> None:
    machine = stage.cluster.machines[0]
    stage.go_on()
    with stage.disturbing():
        machine.cut_off()
        stage.wait(lambda: stage.haproxy.up() == HOSTS - 1)
        stage.go_on()
        machine.connect()
    stage.go_on()


def failover(stage: Stage, take_away: Callable[[Node], None]) -> None:
    """Kill the primary while the standby is behind; it must not lack what was acknowledged."""
    cluster = stage.cluster
    primary = cluster.primary
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    stage.go_on()
    with stage.disturbing():
        began = monotonic()
        primary.host.lose_way_to(cluster.other.host)
        stage.wait(lambda: len(sql(primary.url, waiting)) >= UNREPLICATED)
        take_away(primary)
        # Later the service cancels the wait, and tells others what is on the primary alone.
        assert monotonic() - began < RETRY_DEADLINE, "too late for this trial"
        cluster.fail_over()
        stage.go_on()
    stage.go_on()


def former_primary_back(stage: Stage, bring_back: Callable[[Node], None]) -> None:
    """Start the former primary, which would acknowledge what it is sent, and let it rejoin."""
    cluster = stage.cluster
    former = cluster.other

    def refusals() -> list[int]:
        return [service.log.read_text().count(REFUSED) for service in cluster.services]

    bring_back(former)
    former.wait_for_standby(False)
    former.host.find_way_to(cluster.primary.host)
    refused, number = refusals(), former.count_transaction()
    for _ in range(3):
        with stage.disturbing():
            sql(cluster.primary.url, END_CONNECTIONS)
            stage.go_on()
    for now, then in zip(refusals(), refused, strict=True):
        assert now > then, "a host has not tried it"
    assert former.count_transaction() == number + 1, "it was written to"
    former.rejoin(cluster.primary)
    stage.go_on()


def failover_to_asynchronous_standby(stage: Stage) -> None:
    """Fail over to a standby that nobody waited for, which must lose what was acknowledged."""
    cluster = stage.cluster
    primary = cluster.primary
    primary.wait_for_standby(False)
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
    wait: float = RETRY_DEADLINE  # seconds that a caller may wait at most


TRIALS = (
    Trial("three hosts", hosts_at_once),
    Trial("a host cut off, and back", host_cut_off, TIMEOUT_SERVER),
    Trial("primary killed, standby promoted", partial(failover, take_away=Node.kill)),
    Trial("former primary back, and rejoins", partial(former_primary_back, bring_back=Node.start)),
    Trial(
        "primary's machine gone, standby promoted",
        partial(failover, take_away=lambda node: node.host.cut_off()),
    ),
    Trial(
        "the machine back, and rejoins",
        partial(former_primary_back, bring_back=lambda node: node.host.connect()),
    ),
)

CONTROL = Trial("control: asynchronous standby promoted", failover_to_asynchronous_standby)


@dataclass
class Pulse:
    """Makes a row every PULSE seconds, whether those before it were answered or not."""

    port: int
    over: bool = False
    calls: list[Call] = field(default_factory=list)  # in the order of their ends

    async def run(self) -> None:
        """Go on until `over`."""
        async with asyncio.TaskGroup() as tasks:
            for number in count():
                if self.over:
                    break
                tasks.create_task(self._beat(Key("departments", f"beat {number}")))
                await asyncio.sleep(PULSE)

    async def _beat(self, key: Key) -> None:
        client, start = Client(self.port), monotonic()
        answer = await client.ask(*http("POST", key))
        client.close()
        self.calls.append(ended(0, "POST", key, start, answer))

    @property
    def longest_gap(self) -> float:
        """The longest time without an answer, in seconds."""
        ends = [call.end for call in self.calls if call.answered]
        return max(later - earlier for earlier, later in pairwise(ends))


def judged(trial: Trial, cluster: Cluster, requests: int, seed: str) -> tuple[Verdict, list[str]]:
    """Run the trial in the midst of traffic; return the table's row, and what was broken."""
    with (
        balanced(cluster.services) as haproxy,
        traffic_to(haproxy.port, seed) as (traffic, pulse, going),
    ):
        stage = Stage(cluster, haproxy, traffic, going, requests // 3)
        trial.run(stage)
    after = tables(cluster.primary.url)
    sql(cluster.primary.url, "TRUNCATE departments, employees")
    calls = [*traffic.calls, *pulse.calls]
    missing, copies = lost(calls, set(after)), doubled(after)
    slowest = max(calls, key=lambda call: call.end - call.start)
    verdict = Verdict(
        trial.name,
        sum(call.answered for call in calls),
        len(missing),
        len(copies),
        slowest.end - slowest.start,
        pulse.longest_gap,
    )
    broken = [*missing, *copies]
    look = Call(-1, "TABLE", None, inf, inf, 200, tuple(after))
    try:
        check([*calls, look], [], broken_commits=stage.disturbed)
    except NotLinearizable as error:
        broken.append(str(error))
    if verdict.longest_wait > trial.wait + LATE:
        broken.append(f"a caller waited for too long:\n{history([slowest])}")
    in_vain = [call for call in calls if not call.answered]
    for began, end in stage.disturbed:
        in_vain = [call for call in in_vain if call.end < began or call.start > end]
    if in_vain:
        broken.append(f"in vain, and needlessly:\n{history(in_vain)}")
    logs = [service.log.read_text() for service in cluster.services]
    broken += [f"a service logged\n{log}" for log in logs if "Traceback" in log]
    return verdict, broken


@contextmanager
def traffic_to(port: int, seed: str) -> Iterator[tuple[Traffic, Pulse, list[Future[None]]]]:
    """Run clients and a pulse until the end of the block; yield both, and what tells their ends."""
    traffic, pulse = Traffic(port, seed), Pulse(port)
    with event_loop() as start:
        going = [start(traffic.run()), start(pulse.run())]
        try:
            yield traffic, pulse, going
        finally:
            traffic.over = pulse.over = True
            wait(going, LIMIT)
        for each in going:
            each.result(0)
