"""The verdict judges what happened, and, with bounds in seconds, also when it happened."""

from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.faults.scene import Fault
from tests.faults.traffic import Probe, Traffic
from tests.faults.verdict import Strike, judge
from tests.proof.linearizability import Call, Key, Row

ADA, BOB = Row("departments", 1, "Ada"), Row("departments", 2, "Bob")
CREATED = Call(0, "POST", Key("departments", "Ada"), 5, 5.1, 201, (ADA,))

# Seconds. A caller may wait for two, and /ready may be late by two.
STRIKE = Strike(1, began=10, struck=11, lifting=15, lifted=16, recovered=17)
READY = dict.fromkeys(range(1, 30), 200)
OUTAGE: Mapping[str, Any] = {"costs": (503,), "down": True}
DOWN = READY | dict.fromkeys(range(12, 15), 503)


def refused(start: float, seconds: float, status: int | None = 503) -> Call:
    return Call(1, "POST", Key("departments", "Bob"), start, start + seconds, status)


class Case(NamedTuple):
    """What happened, and what the verdict says of it with bounds in seconds, and without."""

    with_bounds: str
    without: str
    calls: tuple[Call, ...] = ()
    ready: Mapping[int, int] = READY
    fault: Mapping[str, Any] = MappingProxyType({})
    strike: Strike = STRIKE
    rows: tuple[Row, ...] = (ADA,)


CASES = {
    "nothing": Case("", ""),
    "an outage": Case("", "", (refused(12, 2.5),), DOWN, OUTAGE),
    "a refusal at the deadline": Case("needlessly", "", (refused(12, 2),)),
    "a refusal at once": Case("needlessly", "needlessly", (refused(12, 0.5),)),
    "a 500": Case("-> 500", "-> 500", (refused(12, 3, 500),)),
    "no answer": Case("needlessly", "needlessly", (refused(12, 3, None),)),
    "a refusal at the deadline before an outage": Case(
        "before the fault", "", (refused(7, 2),), DOWN, OUTAGE
    ),
    "a refusal at once before an outage": Case(
        "before the fault", "before the fault", (refused(7, 0.5),), DOWN, OUTAGE
    ),
    "a refusal at the deadline after an outage": Case(
        "after the fault", "", (refused(19, 2),), DOWN, OUTAGE
    ),
    "a refusal at once after an outage": Case(
        "after the fault", "after the fault", (refused(19, 0.5),), DOWN, OUTAGE
    ),
    "a caller that waits": Case(
        "a caller waited for 3.50 s",
        "",
        (Call(1, "POST", Key("departments", "Ada"), 7, 10.5, 200, (ADA,)),),
    ),
    "/ready says no before the fault": Case("/ready said 503", "", ready=READY | {7: 503}),
    "/ready says no during the fault": Case("/ready said 503", "", ready=READY | {12: 503}),
    "/ready says no after the fault": Case("/ready said 503", "", ready=READY | {25: 503}),
    "/ready says yes during an outage": Case("/ready said 200", "", fault=OUTAGE),
    "no strike": Case("did not strike", "did not strike", strike=STRIKE._replace(hits=0)),
    "a row is lost": Case("lost: ", "lost: ", rows=()),
    "a key has two rows": Case("2 rows: ", "2 rows: ", rows=(ADA, ADA._replace(id=2))),
    "a row that nobody made": Case("no order", "no order", rows=(ADA, BOB)),
    "a deleted row": Case(
        "deleted, but there",
        "deleted, but there",
        (Call(1, "DELETE", ("departments", 1), 7, 7.1, 204),),
    ),
}


@pytest.mark.parametrize("bounds", [True, False], ids=["with bounds", "without"])
@pytest.mark.parametrize("name", CASES)
def test_the_verdict_has_what_is_wrong(name: str, bounds: bool) -> None:
    case = CASES[name]
    fault = Fault(name, lambda _: nullcontext(), **case.fault)
    traffic = Traffic(0, "")
    traffic.calls = [CREATED, *case.calls]
    traffic.slowest = max(traffic.calls, key=lambda call: call.end - call.start)
    traffic.longest = traffic.slowest.end - traffic.slowest.start
    traffic.probes = [Probe(time + 0.5, status) for time, status in case.ready.items()]
    traffic.first_ready = 1
    broken = "\n".join(judge(fault, [case.strike], traffic, [*case.rows], bounds=bounds).broken)
    expected = case.with_bounds if bounds else case.without
    assert expected in broken
    assert bool(expected) == bool(broken), broken
